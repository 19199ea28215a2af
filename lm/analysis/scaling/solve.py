"""Minimising a fit's objective from many starts, or for many resamples, at once.

All problems are steps of one array program: S parameter vectors [S, p] over n runs, each with weights of its own on
the runs. First damped Gauss-Newton steps on the least squares that touch the objective (Levenberg 1944, Marquardt
1963; Holland and Welsch 1977 for the weights), which get near from far away; then Newton steps, with the Hessian taken
from differences of the exact gradient, which end in a handful of steps. A step that doesn't go down isn't taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from lm.analysis.scaling.law import Columns, Law
from lm.analysis.scaling.objective import Objective

TINY = 1e-12
PATIENCE = 8  # steps without gain: of those that are refused, each is a fifth of the one before
LIMIT = 60.0  # of a coordinate: e^60 is no parameter of any law


@dataclass(frozen=True)
class Problem:
    """What is minimised. weights: [n] or [S, n], how often each run counts."""

    law: Law
    columns: Columns
    observed: np.ndarray
    objective: Objective
    weights: np.ndarray

    def value(self, theta: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """The objective [S] of coordinates [S, p]; infinite where a prediction is no number. rows: which of the
        problems these are."""
        with np.errstate(all="ignore"):
            total = (self._weights(rows) * self.objective.loss(self._residual(self.law.at(theta, self.columns)))).sum(1)
        return np.where(np.isfinite(total), total, np.inf)

    def parts(self, theta: np.ndarray, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The objective's gradient [S, p], and the Gauss-Newton matrix [S, p, p]; 0 where it is no number."""
        with np.errstate(all="ignore"):
            r, inner, slopes = self.residuals(theta)
            weights = self._weights(rows)
            gradient = _dot(slopes, weights * self.objective.slope(r) * inner)
            curved = weights * self.objective.weight(r) * inner * inner
            matrix = (slopes * curved[:, None, :]) @ slopes.swapaxes(1, 2)
        bad = ~(np.isfinite(gradient).all(1) & np.isfinite(matrix).all((1, 2)))
        gradient[bad], matrix[bad] = 0, 0
        return gradient, matrix

    def gradient(self, theta: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """The objective's gradient [S, p]; 0 where it is no number."""
        with np.errstate(all="ignore"):
            r, inner, slopes = self.residuals(theta)
            found = _dot(slopes, self._weights(rows) * self.objective.slope(r) * inner)
        return np.where(np.isfinite(found).all(1, keepdims=True), found, 0)

    def hessian(self, theta: np.ndarray, rows: np.ndarray | None = None, step: float = 1e-6) -> np.ndarray:
        """The objective's second derivatives [S, p, p], from differences of the gradient."""
        here = self.gradient(theta, rows)
        columns = [
            (self.gradient(theta + step * direction, rows) - here) / step for direction in np.eye(theta.shape[1])
        ]
        matrix = np.stack(columns, axis=-1)
        return (matrix + matrix.swapaxes(1, 2)) / 2

    def residuals(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals [S, n], what they change by for a change of the prediction [S, n], and its slopes [S, p, n]."""
        found, slopes = self.law.slopes(theta, self.columns)
        return self._residual(found), 1 / found if self.objective.on == "log" else np.ones_like(found), slopes

    def _residual(self, found: np.ndarray) -> np.ndarray:
        return np.log(found) - np.log(self.observed) if self.objective.on == "log" else found - self.observed

    def _weights(self, rows: np.ndarray | None) -> np.ndarray:
        if self.weights.ndim == 1:
            return self.weights[None]
        return self.weights if rows is None else self.weights[rows]


def minimise(problem: Problem, theta: np.ndarray, far: int = 200, near: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates [S, p] that each of S starts comes to, and the objective there [S]. far, near: most steps of
    either kind; far=0 for starts that are near."""

    def newton(theta: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return problem.gradient(theta, rows), problem.hessian(theta, rows)

    if not theta.shape[1]:  # all parameters are given
        return theta, problem.value(theta)
    if far:
        theta, _ = descend(problem, theta, problem.parts, far, 1e-4)
    return descend(problem, theta, newton, near, 1e-13)


def descend(
    problem: Problem,
    theta: np.ndarray,
    parts: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    steps: int,
    tol: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Damped steps by the gradient and the curvature that `parts` gives, until the objective falls by less than `tol`
    of itself for PATIENCE steps, or a step can't gain that much any more."""
    theta = np.array(theta, float)
    value = problem.value(theta)
    damping, still = np.full(len(theta), 1e-3), np.zeros(len(theta), int)
    active = np.flatnonzero(np.isfinite(value))
    for _ in range(steps):
        if not len(active):
            break
        gradient, curved = parts(theta[active], active)
        move = _steps(gradient, curved, damping[active])
        arrived = (damping[active] < 1e-2) & (-(gradient * move).sum(1) <= tol * value[active])
        trial = np.clip(theta[active] + move, -LIMIT, LIMIT)
        new = problem.value(trial, active)
        better = new < value[active]
        gain = np.where(better, value[active] - new, 0) / np.maximum(value[active], TINY**2)
        theta[active[better]], value[active[better]] = trial[better], new[better]
        damping[active] = np.where(better, np.maximum(damping[active] * 0.2, 1e-14), damping[active] * 5)
        still[active] = np.where(better & (gain > tol), 0, still[active] + 1)
        active = active[(still[active] < PATIENCE) & ~arrived]
    return theta, value


def polish(problem: Problem, theta: np.ndarray, steps: int = 50) -> np.ndarray:
    """The nearest optimum of least absolute deviations from `theta` [p]: a row of linear programs, each exact for the
    tangent within a box that shrinks where the tangent misleads (Osborne and Watson 1971)."""
    weights = np.broadcast_to(problem.weights, problem.observed.shape)
    value, box = problem.value(theta[None])[0], 0.1
    for _ in range(steps):
        r, inner, slopes = problem.residuals(theta[None])
        move = _linear_program(r[0], (slopes[0] * inner[0]).T, weights, box)
        new = problem.value(theta[None] + move)[0]
        if new < value:
            theta, value, box = theta + move, new, box * 2
        elif box < 1e-9:
            break
        else:
            box = min(box, float(np.abs(move).max())) / 4
    return theta


def _linear_program(r: np.ndarray, slopes: np.ndarray, weights: np.ndarray, box: float) -> np.ndarray:
    """The move [p], no coordinate by more than `box`, that makes the weighted sum of |r + slopes move| least."""
    n, p = slopes.shape
    both = np.concatenate([slopes, -slopes])
    rows = sparse.hstack([sparse.csr_array(both), -sparse.vstack([sparse.eye_array(n)] * 2)])
    bounds = [(-box, box)] * p + [(0, None)] * n
    cost = np.concatenate([np.zeros(p), weights])
    found = linprog(cost, A_ub=rows, b_ub=np.concatenate([-r, r]), bounds=bounds, method="highs")
    return found.x[:p] if found.status == 0 else np.zeros(p)


def _dot(slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (slopes @ weights[..., None])[..., 0]


def _steps(gradient: np.ndarray, curvature: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Steps [S, p] downhill along the eigenvectors, each by the size of its curvature, which may be negative."""
    scale = np.sqrt(np.maximum(np.abs(np.diagonal(curvature, axis1=1, axis2=2)), TINY**2))
    values, vectors = np.linalg.eigh(curvature / scale[:, :, None] / scale[:, None, :])
    along = (vectors.swapaxes(1, 2) @ (gradient / scale)[..., None])[..., 0]
    along = along / (np.maximum(np.abs(values), 1e-14) + damping[:, None])
    return -(vectors @ along[..., None])[..., 0] / scale
