"""Where a task's score rises over compute, and how far models of equal compute differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lm.analysis.emergence.published import Curve
from lm.analysis.scaling.fitting import Fit, fit, start_points
from lm.analysis.scaling.law import Columns, Law, Parameter, positive, real
from lm.analysis.scaling.objective import Objective
from lm.analysis.scaling.runs import table
from lm.analysis.scaling.solve import minimise
from lm.analysis.tables import TableError
from lm.analysis.text import either

GROUPS = 5  # models, or families, that an interval takes
STARTS = 64
LEAST = 1e-3  # a score that gains less has no midpoint


@dataclass(frozen=True)
class Rise(Law):
    """value = c + (u - c) / (1 + exp(-k (x - m))): from chance c to an upper end u of at most 1, half-way at x = m.

    u is c + (1 - c) / (1 + exp(-e)), of which e is fitted. low, high: the smallest and the largest x.
    """

    name = "rise"
    chance: float
    low: float
    high: float
    columns: tuple[str, ...] = ("x",)
    target: str = "value"
    objective = Objective("squared", on="value")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return real("m", self.low, self.high), positive("k", 0.5, 20), real("e", -3, 3)

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        return self.chance + (1 - self.chance) * _sigmoid(p.e) * _sigmoid(p.k * (x["x"] - p.m))

    def derived(self, p: Mapping[str, float]) -> dict[str, float]:
        """top: u. slope: what the score gains a decade at its midpoint. midpoint: m, infinite for no rise at all."""
        rise = (1 - self.chance) * float(_sigmoid(p["e"]))
        midpoint = p["m"] if rise > LEAST else math.inf
        return {"top": self.chance + rise, "slope": rise * p["k"] / 4, "midpoint": midpoint}


@dataclass(frozen=True, kw_only=True)
class Midpoint:
    """Where a curve is half-way from chance to the upper end of its logistic. at: in log10 of x.

    by_families, by_models: its intervals over resamples of whole families and of models; nan for fewer than 5.
    """

    curve: Curve
    fit: Fit
    by_families: tuple[float, float]
    by_models: tuple[float, float]

    @property
    def at(self) -> float:
        return self.fit.derived["midpoint"]

    @property
    def interval(self) -> tuple[float, float]:
        """Over families, since models of one family aren't independent; over models where families are too few."""
        return self.by_models if math.isnan(self.by_families[0]) else self.by_families

    @property
    def known(self) -> bool:
        """Whether the interval ends where there are models."""
        return bool(self.curve.x.min() <= self.interval[0] and self.interval[1] <= self.curve.x.max())

    @property
    def error(self) -> float:
        """The root mean square of what the logistic misses by."""
        return math.sqrt(2 * self.fit.objective / len(self.curve.x))


def midpoint(curve: Curve, n: int = 1000, seed: int = 0, level: float = 0.95) -> Midpoint:
    """The least-squares fit of `Rise` to a curve over log10 x, and intervals of its midpoint by `n` resamples.

    Every model has weight 1; the floor is the task's chance, and the upper end is fitted: with an end of 1, a task that
    the largest models answer to a third would have its midpoint far beyond them.
    Raises TableError for fewer than 5 models.
    """
    found = _fitted(curve, seed)

    def over(groups: np.ndarray) -> tuple[float, float]:
        if len(set(groups)) < GROUPS:
            return math.nan, math.nan
        return _interval(_draws(found, groups, n, seed), level)

    return Midpoint(curve=curve, fit=found, by_families=over(curve.family), by_models=over(curve.model))


@dataclass(frozen=True, kw_only=True)
class Lead:
    """By how many decades of x the midpoint of a graded metric comes before that of shares of right answers."""

    soft: Curve
    hard: Curve
    decades: float
    low: float
    high: float


def lead(soft: Curve, hard: Curve, n: int = 1000, seed: int = 0, level: float = 0.95) -> Lead:
    """Both metrics on the models that have both, and the difference's interval over the same resamples of families.

    Over resamples of models where there are fewer than 5 families. Raises TableError for fewer than 5 models.
    """
    soft, hard = soft.where(np.isin(soft.model, hard.model)), hard.where(np.isin(hard.model, soft.model))
    groups = soft.family if len(set(soft.family)) >= GROUPS else soft.model
    fits = [_fitted(curve, seed) for curve in (soft, hard)]
    first, second = (_draws(fit, groups, n, seed) for fit in fits)
    with np.errstate(invalid="ignore"):  # neither metric of a resample may rise
        low, high = _interval(second - first, level)
    decades = fits[1].derived["midpoint"] - fits[0].derived["midpoint"]
    return Lead(soft=soft, hard=hard, decades=decades, low=low, high=high)


def _fitted(curve: Curve, seed: int) -> Fit:
    if len(set(curve.model)) < GROUPS:
        models = either(len(set(curve.model)), "model")
        raise TableError(f"'{curve.name}' has {models} with {curve.over}; a midpoint takes at least {GROUPS}")
    runs = table(pd.DataFrame({"x": curve.x, "value": curve.value}), "unknown")
    return fit(runs, Rise(curve.chance, curve.x.min(), curve.x.max()), starts=STARTS, seed=seed)


def _draws(found: Fit, groups: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The midpoints [n] of fits to resamples of whole groups; infinite for those without a rise.

    Each begins from the fit and from the best of many points: without a family, the optimum may lie elsewhere.
    """
    labels = pd.factorize(groups)[0]
    count = int(labels.max()) + 1
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=n).astype(float)[:, labels]
    points = start_points(found.problem(), 8 * STARTS, seed, project=False)
    losses = found.how.loss(found.law.at(points, found.columns) - found.observed)
    begin = np.concatenate([np.tile(found.theta, (n, 1)), points[np.argmin(weights @ losses.T, axis=1)]])
    theta, value = minimise(found.problem(np.tile(weights, (2, 1))), begin)
    better = np.argmin(value.reshape(2, n), axis=0)
    return np.array([found.moved(one).derived["midpoint"] for one in theta.reshape(2, n, -1)[better, np.arange(n)]])


def _interval(draws: np.ndarray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise TableError(f"level={level} isn't a share between 0 and 1, such as 0.95")
    if np.isnan(draws).any():
        return math.nan, math.nan
    method = "linear" if np.isfinite(draws).all() else "nearest"  # infinite draws are draws
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], method=method)
    return float(low), float(high)


def _sigmoid(x: Any) -> Any:
    return (1 + np.tanh(x / 2)) / 2  # that can't overflow


# ---- models of equal size ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Two models of different families and nearly equal x, as indices of the curve's: the worse and the better."""

    curve: Curve
    worse: int
    better: int

    @property
    def difference(self) -> float:
        return float(self.curve.value[self.better] - self.curve.value[self.worse])


def spread_at(curve: Curve, decades: float = 0.5) -> Spread:
    """The two models of different families, at most `decades` of x apart, whose scores differ most; of equal
    differences the one between the nearer models. Raises TableError where there are no two such models."""
    apart = np.abs(curve.x[:, None] - curve.x[None])
    gain = curve.value[None] - curve.value[:, None]  # of the column's model over the row's
    pairs = (apart <= decades) & (curve.family[:, None] != curve.family[None])
    if not pairs.any():
        raise TableError(f"'{curve.name}' has no models of two families within {decades:g} decades of {curve.over}")
    rows, columns = np.nonzero(pairs & (gain == gain[pairs].max()))
    nearest = int(np.argmin(apart[rows, columns]))
    return Spread(curve=curve, worse=int(rows[nearest]), better=int(columns[nearest]))
