"""Fitting a law to runs, and what a fit says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import qmc

from lm.analysis.scaling.fixed import Fixed
from lm.analysis.scaling.law import Columns, Law
from lm.analysis.scaling.laws import law_of
from lm.analysis.scaling.objective import Kind, Objective, On
from lm.analysis.scaling.runs import RunTable, one_text
from lm.analysis.scaling.solve import Problem, minimise, polish
from lm.analysis.tables import TableError
from lm.errors import unknown

if TYPE_CHECKING:
    from lm.analysis.scaling.bootstrap import Bootstrap
    from lm.analysis.scaling.optimum import Optimum

AGREE = 1e-4  # starts whose objective is within this share of the best have come to the same optimum
POLISHED = 2  # of the best starts, by linear programs
CONTINUATION = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # deltas on the way to least absolute deviations


@dataclass(frozen=True)
class Fit:
    """A law with the parameters that runs gave it.

    params: by name. objective: what was minimised, at the optimum (a sum over runs). agreement: the share of starts
    that came there. notes: what a reader has to know before using it.
    """

    law: Law
    runs: RunTable
    how: Objective
    params: Mapping[str, float]
    objective: float
    agreement: float
    starts: int
    seed: int
    notes: tuple[str, ...] = ()

    def predict(self, **columns: Any) -> Any:
        """The law's target for a run, or for arrays of them: `predict(params=1e9, tokens=2e10)`."""
        for name in columns:
            if name not in self.law.columns:
                raise TableError(unknown(name, self.law.columns, f"the law {self.law.name} has no column"))
        lacking = [name for name in self.law.columns if name not in columns]
        if lacking:
            raise TableError(f"the law {self.law.name} needs {', '.join(self.law.columns)}; {lacking[0]} isn't given")
        arrays = np.broadcast_arrays(*[np.asarray(columns[name], float) for name in self.law.columns])
        x = {name: array.ravel() for name, array in zip(self.law.columns, arrays, strict=True)}
        found = self.law.at(self.theta[None], x)[0].reshape(arrays[0].shape)
        return float(found) if found.ndim == 0 else found

    @property
    def theta(self) -> np.ndarray:
        return self.law.coordinates(self.params)

    @property
    def derived(self) -> dict[str, float]:
        """Numbers that follow from the parameters, such as the exponent a."""
        return self.law.derived(self.params)

    def number(self, what: str | Callable[[Fit], float]) -> float:
        """A parameter, a derived number, or whatever a function makes of the fit."""
        if callable(what):
            return float(what(self))
        known = {**self.params, **self.derived}
        if what not in known:
            raise TableError(unknown(what, known, f"a fit of {self.law.name} has no number"))
        return known[what]

    @property
    def columns(self) -> Columns:
        """The runs' columns that the law reads."""
        return {name: self.runs.column(name) for name in self.law.columns}

    @property
    def observed(self) -> np.ndarray:
        return self.runs.column(self.law.target)

    @property
    def predicted(self) -> np.ndarray:
        return self.predict(**self.columns)

    @property
    def relative_errors(self) -> np.ndarray:
        """predicted / observed - 1 of each run."""
        return self.predicted / self.observed - 1

    def problem(self, weights: np.ndarray | None = None) -> Problem:
        """What this fit minimises, with these weights on its runs."""
        weights = np.ones(len(self.runs)) if weights is None else weights
        return Problem(self.law, self.columns, self.observed, self.how, weights)

    def moved(self, theta: np.ndarray) -> Fit:
        """The same law with other parameters: what a resample gave."""
        return replace(self, params=self.law.values(theta))

    def optimum(self, flops: float, **options: Any) -> Optimum:
        """The best size and tokens for a compute budget (see `lm.analysis.scaling.optimum`)."""
        from lm.analysis.scaling.optimum import optimum

        return optimum(self, flops, **options)

    def bootstrap(self, n: int = 1000, seed: int = 0, cluster: bool | None = None) -> Bootstrap:
        """The parameters of `n` resamples of the runs (see `lm.analysis.scaling.bootstrap`)."""
        from lm.analysis.scaling.bootstrap import bootstrap

        return bootstrap(self, n, seed, cluster)

    def as_json(self) -> str:
        """All of it in full precision."""
        return json.dumps(
            {
                "law": self.law.name,
                "source": self.law.source,
                "target": self.law.target,
                "objective": str(self.how),
                "kind": self.how.kind,
                "delta": self.how.delta if self.how.kind == "huber" else None,
                "on": self.how.on,
                "params": dict(self.params),
                "derived": self.derived,
                "value": self.objective,
                "runs": len(self.runs),
                "flop_formula": self.runs.formula,
                "data": self.runs.source,
                "starts": self.starts,
                "seed": self.seed,
                "agreement": self.agreement,
                "notes": [*self.runs.notes, *self.notes],
            },
            indent=2,
        )


def fit(
    runs: RunTable,
    law: str | Law = "chinchilla",
    objective: Kind | None = None,
    *,
    delta: float = 1e-3,
    on: On | None = None,
    starts: int = 300,
    seed: int = 0,
    project: bool = True,
    fixed: Mapping[str, float] | None = None,
    begin: Sequence[Mapping[str, float]] = (),
) -> Fit:
    """The parameters of `law` that make `objective` least on `runs`.

    objective: "huber" with `delta`, "lad" (least absolute deviations) or "squared", `on` the logarithm of the target
    ("log") or on the target ("value"); by default what the law's authors took. starts: drawn evenly (Sobol) from the
    law's ranges; with `project` the parameters that the law is linear in are then solved for (variable projection,
    Golub and Pereyra 1973). fixed: parameters that are given and not fitted. begin: more points to start from.
    Raises TableError for runs that can't determine the law: too few, or losses measured on different texts.
    """
    made = law_of(law)
    how = Objective(objective or made.objective.kind, delta, on or made.objective.on)
    if fixed:
        made = Fixed(made, fixed)
    notes = refuse(runs, made)
    columns = {name: runs.column(name) for name in made.columns}
    problem = Problem(made, columns, runs.column(made.target), how, np.ones(len(runs)))
    theta = start_points(problem, starts, seed, project)
    theta = np.concatenate([*[made.coordinates(point)[None] for point in begin], theta])
    theta, value = solve(problem, theta)
    if not np.isfinite(value).any():
        raise TableError(
            f"no start gave the law {made.name} a finite prediction of these runs; are the columns in its units?"
        )
    best = int(np.argmin(value))
    agreement = float(np.mean(value <= value[best] * (1 + AGREE) + 1e-15))
    if agreement < 0.1 and starts >= 20:
        notes.append(f"Only {agreement:.0%} of {starts} starts came to the best optimum: others may be better still.")
    if how.kind == "lad":  # its optima are corners, many of them nearly as good as the best
        for near in np.argsort(value)[:POLISHED]:
            theta[near] = polish(problem, theta[near])
        value = problem.value(theta)
        best = int(np.argmin(value))
    params = made.values(theta[best])
    found = Fit(made, runs, how, params, float(value[best]), agreement, starts, seed)
    from lm.analysis.scaling.uncertainty import unidentified

    return replace(found, notes=(*notes, *unidentified(found)))


def solve(problem: Problem, theta: np.ndarray, far: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Minimises from each start (far: as `minimise` has it); least absolute deviations through a row of Huber
    functions, from which `polish` is left to be done."""
    how = problem.objective
    if how.kind != "lad":
        return minimise(problem, theta, far)
    for k, delta in enumerate(CONTINUATION):
        theta, _ = minimise(replace(problem, objective=how.smooth(delta)), theta, 0 if k else 200)
    return theta, problem.value(theta)


def start_points(problem: Problem, starts: int, seed: int, project: bool) -> np.ndarray:
    """[S, p]: points spread over the ranges of the law's parameters."""
    if starts < 1:
        raise TableError(f"starts={starts} must be at least 1")
    parameters = problem.law.parameters
    low = np.array([p.coordinate(p.low) for p in parameters])
    high = np.array([p.coordinate(p.high) for p in parameters])
    power = max(int(np.ceil(np.log2(starts))), 0)
    theta = low + (high - low) * qmc.Sobol(len(parameters), rng=seed).random_base2(power)[:starts]
    return projected(problem, theta) if project else theta


def projected(problem: Problem, theta: np.ndarray) -> np.ndarray:
    """The starts with their linear parameters replaced by the least squares on relative errors, kept positive."""
    linear = [i for i, p in enumerate(problem.law.parameters) if p.linear]
    if not linear:
        return theta
    with np.errstate(all="ignore"):
        _, slopes = problem.law.slopes(theta, problem.columns)
        basis = slopes[:, linear] / np.exp(theta[:, linear])[..., None] / problem.observed
        scale = np.sqrt((basis**2).sum(-1))
        basis = basis / scale[..., None]
    theta, good = theta.copy(), np.isfinite(basis).all((1, 2))
    normal = basis[good] @ basis[good].swapaxes(1, 2) + 1e-10 * np.eye(len(linear))
    found = np.linalg.solve(normal, basis[good].sum(-1)[..., None])[..., 0]
    share = np.maximum(found, 1e-2)  # of a positive parameter: what would be negative begins small
    theta[np.flatnonzero(good)[:, None], linear] = np.log(share / scale[good])
    return theta


def refuse(runs: RunTable, law: Law) -> list[str]:
    """Raises TableError where a fit would be a number without meaning; gives sentences where it is a weak one."""
    count, needed = len(runs), len(law.parameters)
    if count <= needed:
        raise TableError(
            f"{count} runs can't determine the {needed} parameters of the law {law.name}, and leave an error"
        )
    if law.target == "loss":
        one_text(runs)
    if "formula" in runs.frame.columns and len(set(runs.frame["formula"])) > 1:
        raise TableError("the runs' FLOPs are by different formulas; count all by one")
    notes = []
    if count < 3 * needed:
        notes.append(f"{count} runs for {needed} parameters: intervals are wide, and bootstraps of so few too narrow.")
    return notes + law.caution({name: runs.column(name) for name in law.columns})
