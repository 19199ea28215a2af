"""What an experiment expects to see, as values, judged by what it measured.

A claim names series (arms) and metrics as the report does: "heldout.accuracy", "answers.exact". Each seed is judged by
itself, and a claim holds where it does in every seed; those that speak of an average say so.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from lm.config import ConfigError, config

if TYPE_CHECKING:
    from lm.analysis.emergence.measured import Measured


class Judged(NamedTuple):
    """holds is None where it can't be said: nothing was measured, or too little."""

    expected: str
    seen: str
    holds: bool | None


class Claim(abc.ABC):
    """An expectation. `expected` is the sentence that a report prints."""

    expected: str

    def judged(self, measured: Measured) -> Judged:
        """By what was measured; a series or metric that isn't there is no reason to stop."""
        from lm.analysis.tables import TableError

        try:
            seen, holds = self.judge(measured)
        except TableError as error:
            return Judged(self.expected, str(error), None)
        return Judged(self.expected, seen, holds)

    @abc.abstractmethod
    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        """What was seen, and whether it is what was expected."""


@config
class Reaches(Claim):
    """In every seed of the series the metric reaches `level`, from below (`rising`) or from above."""

    expected: str
    series: str
    metric: str
    level: float
    rising: bool = True

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        found = measured.passes(self.metric, self.series, self.level, self.rising)
        seen = f"{self.series}: {self.metric} {_passed(found.values(), self.level)}"
        return seen, _all(map(math.isfinite, found.values()))


@config
class Never(Claim):
    """In no seed of the series does the metric reach `level`."""

    expected: str
    series: str
    metric: str
    level: float
    rising: bool = True

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        found = measured.passes(self.metric, self.series, self.level, self.rising)
        ends = _spread(measured.ends(self.metric, self.series).values())
        seen = f"{self.series}: {self.metric} {_passed(found.values(), self.level)}, at the end {ends}"
        return seen, _all(map(math.isinf, found.values()))


@config
class Delayed(Claim):
    """In every seed `late` reaches `level` at least `factor` times later than `early` does."""

    expected: str
    series: str
    early: str
    late: str
    level: float
    factor: float = 2.0

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        first = measured.passes(self.early, self.series, self.level)
        then = measured.passes(self.late, self.series, self.level)
        both = [(first[s], then[s]) for s in first if s in then]
        ratios = [b / a for a, b in both if math.isfinite(a) and math.isfinite(b)]
        seen = [
            f"{name} {_passed(found.values(), self.level)}" for name, found in ((self.early, first), (self.late, then))
        ]
        text = f"{self.series}: {', '.join(seen)}"
        if ratios:
            text += f": {_spread(ratios)} times later"
        return text, _all(math.isfinite(b) and b >= self.factor * a for a, b in both)


@config
class Together(Claim):
    """In every seed the metrics are half-way between their first and last values at the same x, within `factor`."""

    expected: str
    series: str
    metrics: tuple[str, ...]
    factor: float = 2.0

    def __post_init__(self) -> None:
        if len(self.metrics) < 2:
            raise ConfigError("Together compares at least two metrics")

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        half = {metric: _half_ways(measured, metric, self.series) for metric in self.metrics}
        seeds = set.intersection(*(set(found) for found in half.values()))
        apart = [max(v) / min(v) for s in sorted(seeds, key=str) if (v := [found[s] for found in half.values()])]
        where = "; ".join(f"{metric} half-way at {_spread(found.values())}" for metric, found in half.items())
        return f"{self.series}: {where}", _all(a <= self.factor for a in apart)


@config
class Near(Claim):
    """At its end the metric is within `tolerance` of another one, such as what theory gives, on average over seeds."""

    expected: str
    series: str
    metric: str
    gold: str
    tolerance: float

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        ends, gold = measured.ends(self.metric, self.series), measured.ends(self.gold, self.series)
        apart = [ends[s] - gold[s] for s in ends if s in gold]
        text = f"{self.series}: {self.metric} {_spread(ends.values())}, {self.gold} {_spread(gold.values())}"
        if not apart:
            return text, None
        mean = float(np.mean(apart))
        return f"{text}: {mean:+.3g} on average", abs(mean) <= self.tolerance


@config
class Above(Claim):
    """In every seed (series, metric) `of` ends above `over`, by more than `margin`."""

    expected: str
    of: tuple[str, str]
    over: tuple[str, str]
    margin: float = 0.0

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        ours, theirs = (measured.ends(metric, series) for series, metric in (self.of, self.over))
        apart = [ours[s] - theirs[s] for s in ours if s in theirs]
        each = [f"{s}: {m} {_spread(x.values())}" for (s, m), x in ((self.of, ours), (self.over, theirs))]
        text = "; ".join(each) + (f"; apart by {_spread(apart)}" if apart else "")
        return text, _all(x > self.margin for x in apart)


@config
class NeverBelow(Claim):
    """Nowhere on its way is the metric below `gold` by more than `slack`, which is what the noise of finitely many
    examples allows."""

    expected: str
    series: str
    metric: str
    gold: str
    slack: float = 0.0

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        least = [float(np.min(y - gold)) for _, y, gold in measured.pairs(self.metric, self.gold, self.series).values()]
        lowest = f"is at least {min(least):+.4f}" if least else "not measured"
        return f"{self.series}: {self.metric} - {self.gold} {lowest}", _all(x >= -self.slack for x in least)


@config
class Dwells(Claim):
    """A phase of training: in every seed the metric stays within `tolerance` of `gold` while x grows by at least
    `factor`, and ends elsewhere."""

    expected: str
    series: str
    metric: str
    gold: str
    tolerance: float
    factor: float = 1.5

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        pairs = measured.pairs(self.metric, self.gold, self.series)
        spans = [_phase(x, np.abs(y - gold) <= self.tolerance) for x, y, gold in pairs.values()]
        said = ", ".join("in no phase" if math.isnan(a) else f"from {_short(a)} to {_short(b)}" for a, b in spans)
        text = f"{self.series}: {self.metric} near {self.gold} {said or 'not measured'}"
        return text, _all(b >= self.factor * a for a, b in spans)


@config
class Staircase(Claim):
    """In every seed the metrics of a pattern, such as "kinds.accuracy_*", reach `level` one after another: the first
    at most at 1/`factor` of the last's x, and at least `count` of them do."""

    expected: str
    series: str
    metrics: str
    level: float
    count: int
    factor: float = 2.0

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        names = measured.matching(self.metrics)
        found = [measured.passes(name, self.series, self.level) for name in names]
        spans, reached = [], []
        for seed in dict.fromkeys(seed for one in found for seed in one):
            at = sorted(x for one in found if math.isfinite(x := one.get(seed, math.inf)))
            reached.append(len(at))
            spans.append(at[-1] / at[0] if len(at) > 1 else 1.0)
        text = f"{self.series}: {_spread(reached)} of {len(names)} reach {self.level:g}"
        if max(reached, default=0) > 1:
            text += f", the last at {_spread(spans)} times the x of the first"
        return text, _all([*(s >= self.factor for s in spans), *(n >= self.count for n in reached)])


@config
class Takes(Claim):
    """In every seed each metric of a pattern gets from the level `start` to the level `end` (a lower one, where it
    falls) while x grows by a factor of at least `least` and at most `most`."""

    expected: str
    series: str
    metrics: str
    start: float
    end: float
    least: float = 1.0
    most: float = math.inf

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        rising, factors = self.end > self.start, []
        for metric in measured.matching(self.metrics):
            first = measured.passes(metric, self.series, self.start, rising)
            last = measured.passes(metric, self.series, self.end, rising)
            factors += [last[s] / first[s] if math.isfinite(last[s]) else math.inf for s in last]
        there = [f for f in factors if math.isfinite(f)]
        said = [f"while x grows {_spread(there)} times"] if there else []
        said += [f"never in {len(factors) - len(there)} of {len(factors)}"] if len(there) < len(factors) else []
        text = f"{self.series}: {self.metrics} from {self.start:g} to {self.end:g} {', '.join(said) or 'not measured'}"
        return text, _all(math.isfinite(f) and self.least <= f <= self.most for f in factors)


@config
class Shape(Claim):
    """In every seed, or over sizes in the mean over seeds, the curve of the metric is of one of these kinds
    (`lm.analysis.emergence.curve_verdict`)."""

    expected: str
    series: str
    metric: str
    kinds: tuple[Literal["jump", "bend", "smooth", "none"], ...]

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        from lm.analysis.emergence.verdict import curve_verdict

        x, values = measured.matrix(self.metric, self.series)
        # seeds break at places of their own in training; over sizes a seed is no curve, only their mean is one
        curves, least = [values] if measured.over_sizes else values, measured.told_from_zero(self.metric, self.series)
        each = [curve_verdict(x, curve, least=least) for curve in curves]
        said = "; ".join(dict.fromkeys(found.words(measured.unit) for found in each)) or "not measured"
        known = [found.kind in self.kinds for found in each if found.kind != "unknown"]
        return f"{self.series}: {self.metric} {said}", _all(known)


@config
class Advantage(Claim):
    """Over sizes: (series, metric) `of` beats `over` by `margin` on average over seeds at the largest size, and not at
    the smallest."""

    expected: str
    of: tuple[str, str]
    over: tuple[str, str]
    margin: float = 0.05

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        (x, ours), (same, theirs) = (measured.matrix(metric, series) for series, metric in (self.of, self.over))
        shared = np.intersect1d(x, same)
        if len(shared) < 2:
            return "fewer than two sizes are there", None
        gain = ours[:, np.isin(x, shared)].mean(0) - theirs[:, np.isin(same, shared)].mean(0)
        first = next((a for a, g in zip(shared, gain, strict=True) if g > self.margin), math.inf)
        text = ", ".join(f"{g:+.2f} at {_short(a)}" for a, g in zip(shared, gain, strict=True))
        above = (
            f"above {self.margin:g} first at {_short(first)}"
            if math.isfinite(first)
            else f"never above {self.margin:g}"
        )
        return f"advantage {text}: {above}", bool(gain[-1] > self.margin >= gain[0])


# ---- words -------------------------------------------------------------------------------------------------------


def _all(each: Iterable[bool]) -> bool | None:
    found = list(each)
    return all(found) if found else None


def _half_ways(measured: Measured, metric: str, series: str) -> dict[object, float]:
    """Where each seed's curve is half-way between its first and its last value."""
    found = {}
    for seed, (x, y) in measured.curves(metric, series).items():
        beyond = np.flatnonzero((y - y[0]) / (y[-1] - y[0]) >= 0.5) if y[-1] != y[0] else []
        found[seed] = float(x[beyond[0]]) if len(beyond) else math.inf
    return found


def _phase(x: np.ndarray, near: np.ndarray) -> tuple[float, float]:
    """The stretch of x without a gap, in which `near` holds, over which x grows most; NaN where it holds at the end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], near, [False]]).astype(int)))
    spans = [(float(x[a]), float(x[b - 1])) for a, b in edges.reshape(-1, 2)]
    return max(spans, key=lambda span: span[1] / span[0]) if spans and not near[-1] else (math.nan, math.nan)


def _spread(values: Iterable[float]) -> str:
    """One number, or the median with the range."""
    found = sorted(values)
    if not found:
        return "not measured"
    middle = float(np.median(found))
    return _short(middle) if found[0] == found[-1] else f"{_short(middle)} [{_short(found[0])}, {_short(found[-1])}]"


def _passed(values: Iterable[float], level: float) -> str:
    found = list(values)
    if not found:
        return "not measured"
    there = [x for x in found if math.isfinite(x)]
    if not there:
        return f"never reaches {level:g} ({len(found)} seed{'s' * (len(found) > 1)})"
    often = "" if len(there) == len(found) else f" in {len(there)} of {len(found)} seeds"
    return f"reaches {level:g} at {_spread(there)}{often}"


def _short(x: float) -> str:
    """Three digits, but steps and parameters as they are."""
    from lm.analysis.text import si

    return f"{x:,.0f}" if 1e3 <= abs(x) < 1e6 else si(x)
