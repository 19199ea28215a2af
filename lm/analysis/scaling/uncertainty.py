"""Intervals that don't come from resampling: the covariance at the optimum, and the profile of the objective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import chi2

from lm.analysis.scaling.fitting import Fit
from lm.analysis.scaling.fixed import Fixed
from lm.analysis.scaling.solve import Problem, minimise
from lm.analysis.tables import TableError
from lm.errors import unknown

VAGUE = 0.7  # about log 2
FLAT = 1e-9  # of a curvature with unit diagonal: no curvature
FAR_OFF = 40.0  # of a logarithm
TINY = 1e-12  # residuals of a law that fits exactly


def curvature(fit: Fit) -> float:
    """The mean second derivative of the objective over the residuals: 1 for least squares. A Huber function with a
    small delta, and the absolute value, have theirs at 0 alone, so it is the residuals' density there, over a window
    that shrinks with their number (as for a quantile; Koenker 2005, section 3.4)."""
    if fit.how.kind == "squared":
        return 1.0
    size = np.abs(fit.problem().residuals(fit.theta[None])[0][0])
    inside = float(np.mean(size <= window(fit))) / window(fit)
    return inside * fit.how.delta if fit.how.kind == "huber" else inside


def window(fit: Fit) -> float:
    """How near to 0 residuals count as being there."""
    size = np.abs(fit.problem().residuals(fit.theta[None])[0][0])
    width = max(1.5 * 1.4826 * float(np.median(size)) * len(size) ** -0.2, TINY)
    return max(width, fit.how.delta) if fit.how.kind == "huber" else width


def dispersion(fit: Fit) -> float:
    """What an objective is divided by to be a log likelihood near its optimum: mean slope squared over mean curvature,
    which for least squares is the residuals' variance (White 1982)."""
    problem = fit.problem()
    slope = problem.objective.slope(problem.residuals(fit.theta[None])[0][0])
    free = len(fit.runs) - len(fit.law.parameters)
    return float((slope**2).sum() / free / curvature(fit))


def covariance(fit: Fit) -> pd.DataFrame:
    """The parameters' covariance by the sandwich H^-1 G H^-1 (Huber 1967), which holds for residuals of unequal size
    and for runs of one `model` that err together; in the parameters' own units, to first order. Infinite for what the
    runs don't determine. For objectives with corners H counts the runs near 0 (Powell 1991)."""
    problem = fit.problem()
    r, inner, slopes = problem.residuals(fit.theta[None])
    moves = slopes[0] * inner[0]  # of the residuals, by the coordinates [p, n]
    if fit.how.kind == "squared":
        matrix = moves @ moves.T
    else:
        width = window(fit)
        matrix = (moves * (np.abs(r[0]) <= width)) @ moves.T * (fit.how.delta if fit.how.kind == "huber" else 1) / width
    bread, unknown_ = _inverse(matrix)
    score = moves * problem.objective.slope(r)[0]
    labels = fit.runs.clusters()
    score = np.stack([np.bincount(labels, row) for row in score])
    free = len(fit.runs) / (len(fit.runs) - len(moves))
    found = bread @ (score @ score.T) @ bread * free
    scale = np.array([fit.params[p.name] if p.positive else 1.0 for p in fit.law.parameters])
    found = found * np.outer(scale, scale)
    found[unknown_, :] = found[:, unknown_] = np.nan
    found[unknown_, unknown_] = np.inf
    return pd.DataFrame(found, index=fit.law.names, columns=pd.Index(fit.law.names))


def _inverse(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of a curvature on the directions that it has, and which parameters lie in those that it hasn't."""
    scale = np.sqrt(np.maximum(np.diag(matrix), TINY**2))
    values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    good = values > FLAT
    inverse = (vectors[:, good] / values[good]) @ vectors[:, good].T
    lost = (np.abs(vectors[:, ~good]) > 0.05).any(axis=1) | (np.diag(matrix) <= TINY**2)
    return inverse / np.outer(scale, scale), lost


def unidentified(fit: Fit) -> list[str]:
    """A sentence for each parameter that the runs don't determine: its logarithm's standard error is so large that a
    factor of two or more either way does nearly as well."""
    found = covariance(fit)
    said = []
    for parameter, at in zip(fit.law.parameters, fit.theta, strict=True):
        value = fit.params[parameter.name]
        error = float(np.sqrt(found.loc[parameter.name, parameter.name])) / value
        if parameter.positive and abs(at) > FAR_OFF:
            said.append(f"The parameter {parameter.name} ran off to {value:.1e}: these runs don't bound it.")
        elif parameter.positive and not error < VAGUE:
            said.append(
                f"The parameter {parameter.name} = {value:.4g} isn't identified by these runs: values that differ from "
                "it by factors fit nearly as well (a ridge); see its profile."
            )
    return said


@dataclass(frozen=True)
class Profile:
    """The least objective with one parameter held at each of some values. drop: twice the log likelihood that is lost,
    which stays below the chi-square quantile inside the interval."""

    name: str
    table: pd.DataFrame  # value, objective, drop, and the other parameters
    best: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where the drop is below the quantile of chi-square with one degree of freedom; infinite on a side
        where the profile ends before it is above."""
        limit = float(chi2.ppf(level, 1))
        value, drop = self.table["value"].to_numpy(float), self.table["drop"].to_numpy(float)
        inside = np.flatnonzero(drop <= limit)
        low = -np.inf if inside[0] == 0 else _crossing(value, drop, inside[0] - 1, inside[0], limit)
        high = np.inf if inside[-1] == len(value) - 1 else _crossing(value, drop, inside[-1], inside[-1] + 1, limit)
        return low, high

    @property
    def identified(self) -> bool:
        """Whether the runs bound the parameter on both sides."""
        return bool(np.isfinite(self.interval()).all())

    @property
    def note(self) -> str:
        """A sentence for a parameter that isn't identified, else ""."""
        low, high = self.interval()
        if self.identified:
            return ""
        side = "nothing" if not np.isfinite(low) and not np.isfinite(high) else f"only [{low:.4g}, {high:.4g}]"
        return f"{self.name} isn't identified: the runs bound it to {side} (the profile is a ridge)."


def profile(fit: Fit, name: str, width: float = 8.0, points: int = 61) -> Profile:
    """The profile of one parameter, from its value / width to its value * width (or +- width of it where it may be
    negative), the others fitted anew at each point from their neighbours.

    Runs are taken to err alike and independently: where noise is larger for some, or runs of one model err together,
    take the bootstrap. Objectives other than least squares are scaled to be a log likelihood at the optimum.
    """
    if name not in fit.params:
        raise TableError(unknown(name, fit.params, f"a fit of {fit.law.name} has no parameter"))
    parameter = next(p for p in fit.law.parameters if p.name == name)
    best = fit.params[name]
    at = (
        best * np.geomspace(1 / width, width, points)
        if parameter.positive
        else best + np.linspace(-width, width, points)
    )
    middle = points // 2
    values, others = np.empty(points), [dict[str, float]() for _ in range(points)]
    for direction in (range(middle, points), range(middle - 1, -1, -1)):
        held = {k: v for k, v in fit.params.items() if k != name}
        for i in direction:
            law = Fixed(fit.law, {name: float(at[i])})
            problem = Problem(law, fit.columns, fit.observed, fit.how, np.ones(len(fit.runs)))
            theta, found = minimise(problem, law.coordinates(held)[None])
            held = law.values(theta[0])
            values[i], others[i] = found[0], held
    drop = 2 * (values - fit.objective) / dispersion(fit)
    table = pd.DataFrame({"value": at, "objective": values, "drop": drop}).join(pd.DataFrame(others))
    return Profile(name, table, best)


def _crossing(x: np.ndarray, y: np.ndarray, left: int, right: int, level: float) -> float:
    share = (level - y[left]) / (y[right] - y[left])
    return float(x[left] + share * (x[right] - x[left]))
