"""Paired statistics over seeds: does an arm of an ablation differ from the baseline?

Arms share their seeds, so they share batches and the noise that comes with them (common random numbers).
The difference is taken inside each seed and the interval is Student's t on those differences; the seed
noise that both arms have in common drops out of it.  Several arms against one baseline are several chances
to be wrong, so a verdict follows the p value corrected by Holm (1979), "A simple sequentially rejective
multiple test procedure", Scand. J. Statist. 6.  Effect sizes: Cohen (1988), dz; Glass (1976), delta.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats has it too, but takes seconds to import

from lm.analysis.tables import TableError, arm_names, finished
from lm.errors import unknown

CAP = 1000  # beyond so many more seeds, the answer is that seeds won't resolve it


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm against the baseline. What can't be computed is NaN, never 0.

    `difference` is arm minus baseline, averaged over the `pairs` seeds that both finished, with the interval
    `low` to `high`; `differences` holds it per seed. `dz` is the mean over the sd of the differences, `delta`
    the mean over the baseline's sd over seeds. `more_seeds` is infinite beyond 1000, NaN where it has no meaning.
    """

    arm: str
    n: int
    mean: float
    sd: float
    mean_low: float
    mean_high: float
    pairs: int
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    dz: float = math.nan
    delta: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    more_seeds: float = math.nan
    verdict: str = ""
    differences: Mapping[Hashable, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every arm of an ablation against its baseline, in the order of the run table."""

    baseline: str
    value: str
    confidence: float
    arms: tuple[ArmResult, ...]
    notes: tuple[str, ...]  # what was left out of the statistics, and why

    def __getitem__(self, arm: str) -> ArmResult:
        for result in self.arms:
            if result.arm == arm:
                return result
        raise TableError(unknown(arm, [r.arm for r in self.arms], "there is no arm"))

    @property
    def others(self) -> tuple[ArmResult, ...]:
        """The arms that aren't the baseline."""
        return tuple(r for r in self.arms if r.arm != self.baseline)

    def table(self) -> pd.DataFrame:
        """One row an arm, the fields of `ArmResult` but for the single differences."""
        names = [f.name for f in dataclasses.fields(ArmResult) if f.name != "differences"]
        return pd.DataFrame([{n: getattr(r, n) for n in names} for r in self.arms], columns=pd.Index(names))


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float, float, float]:
    """Mean, sd (n - 1), and Student's t interval of the mean. NaN for what `values` are too few for."""
    x = np.asarray(values, float)
    if len(x) < 2:
        return (float(x[0]) if len(x) else math.nan), math.nan, math.nan, math.nan
    mean, sd = float(x.mean()), float(x.std(ddof=1))
    half = float(stdtrit(len(x) - 1, (1 + confidence) / 2)) * sd / math.sqrt(len(x))
    return mean, sd, mean - half, mean + half


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the given order. A NaN is no comparison: it stays and isn't counted."""
    return [x if math.isnan(x) else min(1.0, x) for x in _holm_uncapped(p)]


def _holm_uncapped(p: Sequence[float]) -> list[float]:
    order = sorted((i for i, x in enumerate(p) if not math.isnan(x)), key=lambda i: p[i])
    adjusted, highest = [math.nan] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, (len(order) - rank) * p[i])
        adjusted[i] = highest
    return adjusted


def seeds_needed(difference: float, sd: float, confidence: float = 0.95, cap: int = CAP) -> float:
    """Smallest n whose t interval, at this mean and sd of the differences, wouldn't hold 0; infinite beyond `cap`."""
    n = np.arange(2, cap + 1)
    half = stdtrit(n - 1, (1 + confidence) / 2) * sd / np.sqrt(n)
    enough = n[half < abs(difference)]
    return float(enough[0]) if len(enough) else math.inf


def compare(
    runs: pd.DataFrame,
    baseline: str,
    value: str = "heldout_loss",
    confidence: float = 0.95,
    lower_is_better: bool = True,
) -> Comparison:
    """Every arm of `runs` (columns arm, seed, `value`, and status if there is one) against `baseline`.

    Intervals are for one arm each, at `confidence`; "better" and "worse" are said where Holm's corrected p is
    below 1 - confidence. Otherwise the verdict says about how many more seeds would resolve a difference of
    the observed size and spread, at the level that the correction leaves this arm.
    Raises TableError for an unknown baseline or column, or two finished runs of one arm and seed.
    """
    if not 0 < confidence < 1:
        raise TableError(f"confidence must lie between 0 and 1, got {confidence}")
    if not len(runs):
        raise TableError("there are no runs to compare")
    good, notes = finished(runs, value)
    arms = arm_names(runs)
    if baseline not in arms:
        raise TableError(unknown(baseline, arms, "there is no arm for the baseline"))
    values: dict[str, dict[Hashable, float]] = {arm: {} for arm in arms}
    for run in good:
        values[run["arm"]][run["seed"]] = run[value]
    base = values[baseline]
    results = [_describe(arm, values[arm], baseline, base, confidence) for arm in arms]
    notes += [note for arm in arms if (note := _unpaired(arm, values[arm], baseline, base))]
    uncapped = _holm_uncapped([r.p for r in results])
    results = [_judge(r, q, baseline, confidence, lower_is_better) for r, q in zip(results, uncapped, strict=True)]
    return Comparison(baseline=baseline, value=value, confidence=confidence, arms=tuple(results), notes=tuple(notes))


def _unpaired(arm: str, mine: Mapping, baseline: str, base: Mapping) -> str:
    """A note where an arm and the baseline don't have the same seeds."""
    if arm == baseline or not mine or set(mine) == set(base):
        return ""
    common = [s for s in mine if s in base]
    which = f"only the common seeds {', '.join(map(str, common))} are paired" if common else "no seed can be paired"
    return f"{arm} finished {len(mine)} seeds and {baseline} {len(base)}: {which}."


def _describe(arm: str, mine: Mapping, baseline: str, base: Mapping, confidence: float) -> ArmResult:
    mean, sd, low, high = mean_interval(list(mine.values()), confidence)
    result = ArmResult(arm=arm, n=len(mine), mean=mean, sd=sd, mean_low=low, mean_high=high, pairs=len(mine))
    if arm == baseline:
        return result
    differences = {seed: mine[seed] - base[seed] for seed in mine if seed in base}
    d = np.array(list(differences.values()))
    difference, spread, low, high = mean_interval(d, confidence)
    base_sd = mean_interval(list(base.values()))[1]
    if len(d) < 2:
        p = math.nan
    elif spread == 0:  # t is infinite or 0/0 here
        p = float(difference == 0)
    else:
        p = float(2 * stdtr(len(d) - 1, -abs(difference) / (spread / math.sqrt(len(d)))))
    return dataclasses.replace(
        result, pairs=len(d), difference=difference, low=low, high=high, p=p, differences=differences,
        dz=difference / spread if spread > 0 else math.nan,
        delta=difference / base_sd if base_sd > 0 else math.nan,
    )  # fmt: skip


def _judge(r: ArmResult, uncapped: float, baseline: str, confidence: float, lower_is_better: bool) -> ArmResult:
    """`r` with its corrected p and its verdict."""

    def said(verdict: str, more: float = math.nan) -> ArmResult:
        p_holm = min(1.0, uncapped) if r.pairs > 1 and r.arm != baseline else math.nan
        return dataclasses.replace(r, p_holm=p_holm, verdict=verdict, more_seeds=more)

    if r.n == 0:
        return said("no finished run")
    if r.arm == baseline:
        return said("baseline")
    if r.pairs < 2:
        return said(f"not resolved at n={r.pairs}: needs at least 2 common seeds")
    if r.difference == 0 and r.low == r.high:
        return said(f"identical at all {r.pairs} seeds")
    if uncapped < 1 - confidence:
        return said("better" if (r.difference < 0) == lower_is_better else "worse")
    # the level at which this arm is tested once the other arms are allowed for
    level = (1 - confidence) * r.p / uncapped
    spread = float(np.std(list(r.differences.values()), ddof=1))
    needed = seeds_needed(r.difference, spread, 1 - level, cap=r.pairs + CAP)
    more = max(1.0, needed - r.pairs)
    number = f"more than {CAP}" if math.isinf(more) else f"about {more:.0f}"
    return said(f"not resolved at n={r.pairs}: {number} more seed{'' if more == 1 else 's'}", more)
