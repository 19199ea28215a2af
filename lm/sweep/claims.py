"""What an experiment expects to see, as values: written before it is run, and judged by what it measured.

A claim names series (arms) and metrics as the report does: "heldout.accuracy", "answers.exact". Each seed is judged by
itself; a claim holds where it does in every seed, and the words say in how many it did.
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
        return f"{self.series}: {self.metric} {_passed(found.values(), self.level)}", _all(
            map(math.isfinite, found.values())
        )


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
        ends = measured.ends(self.metric, self.series)
        text = (
            f"{self.series}: {self.metric} {_passed(found.values(), self.level)}, at the end {_spread(ends.values())}"
        )
        return text, _all(math.isinf(x) for x in found.values())


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
        ratios = [then[s] / first[s] for s in first if s in then and math.isfinite(then[s])]
        passed = [
            f"{name} {_passed(found.values(), self.level)}" for name, found in ((self.early, first), (self.late, then))
        ]
        text = f"{self.series}: {', '.join(passed)}"
        if ratios:
            text += f": {_spread(ratios)} times later"
        return text, _all([*(math.isfinite(x) for x in then.values()), *(r >= self.factor for r in ratios)])


@config
class Together(Claim):
    """In every seed the metrics are half-way of their change at the same x, within `factor`."""

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
        return text, abs(float(np.mean(apart))) <= self.tolerance if apart else None


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
        curves, golds = measured.curves(self.metric, self.series), measured.curves(self.gold, self.series)
        least = [float(np.min(y - golds[s][1])) for s, (_, y) in curves.items() if s in golds]
        return f"{self.series}: {self.metric} - {self.gold} is at least {min(least, default=math.nan):.4f}", _all(
            x >= -self.slack for x in least
        )


@config
class Dwells(Claim):
    """In every seed the metric stays within `tolerance` of `gold` while x grows by at least `factor`, before it ends
    elsewhere: a phase of training."""

    expected: str
    series: str
    metric: str
    gold: str
    tolerance: float
    factor: float = 1.5

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        curves, golds = measured.curves(self.metric, self.series), measured.curves(self.gold, self.series)
        spans = []
        for seed, (x, y) in curves.items():
            near = np.flatnonzero(np.abs(y - golds[seed][1]) <= self.tolerance)
            left = len(near) > 0 and near[-1] + 1 < len(x)
            spans.append((x[near[0]], x[near[-1]]) if left else (math.nan, math.nan))
        said = ", ".join("never" if math.isnan(a) else f"{a:g} to {b:g}" for a, b in spans)
        return f"{self.series}: near {self.gold} from {said}", _all(b >= self.factor * a for a, b in spans)


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
        for seed in found[0]:
            at = sorted(x for one in found if math.isfinite(x := one.get(seed, math.inf)))
            reached.append(len(at))
            spans.append(at[-1] / at[0] if len(at) > 1 else 1.0)
        text = f"{self.series}: {_spread(reached)} of {len(names)} reach {self.level:g}"
        text += f", the last at {_spread(spans)} times the x of the first"
        return text, _all([*(s >= self.factor for s in spans), *(n >= self.count for n in reached)])


@config
class Shape(Claim):
    """The curve of the metric over x is of this kind (`lm.analysis.emergence.curve_verdict`)."""

    expected: str
    series: str
    metric: str
    kinds: tuple[Literal["jump", "bend", "smooth", "none"], ...]

    def judge(self, measured: Measured) -> tuple[str, bool | None]:
        from lm.analysis.emergence.verdict import curve_verdict

        found = curve_verdict(*measured.matrix(self.metric, self.series))
        return f"{self.series}: {self.metric}: {found.sentence}", found.kind in self.kinds


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
        text = ", ".join(f"{g:+.2f} at {a:g}" for a, g in zip(shared, gain, strict=True))
        where = (
            f"more than {self.margin:g} from {first:g} on"
            if math.isfinite(first)
            else f"never more than {self.margin:g}"
        )
        return f"advantage {text}: {where}", bool(gain[-1] > self.margin >= gain[0])


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


def _spread(values: Iterable[float]) -> str:
    """One number, or the median with the range."""
    found = sorted(values)
    if not found:
        return "not measured"
    middle = float(np.median(found))
    return f"{middle:.3g}" if found[0] == found[-1] else f"{middle:.3g} [{found[0]:.3g}, {found[-1]:.3g}]"


def _passed(values: Iterable[float], level: float) -> str:
    found = list(values)
    there = [x for x in found if math.isfinite(x)]
    if not there:
        return f"never reaches {level:g} ({len(found)} seeds)"
    often = "" if len(there) == len(found) else f" in {len(there)} of {len(found)} seeds"
    return f"reaches {level:g} at {_spread(there)}{often}"
