"""Refitting a law to resampled runs: how far its parameters, and whatever follows from them, could be otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lm.analysis.scaling.fitting import Fit, solve
from lm.analysis.scaling.solve import polish
from lm.analysis.tables import TableError

CHUNK = 250  # resamples that are fitted at once
LOST = 0.01  # share of resamples without a fit, above which it is said


@dataclass(frozen=True)
class Bootstrap:
    """Fits to resamples of the runs. thetas: their parameters, as coordinates of the law, [n, p]."""

    fit: Fit
    thetas: np.ndarray
    asked: int
    cluster: bool

    def draws(self, what: str | Callable[[Fit], float]) -> np.ndarray:
        """A number of every resample's fit: a parameter, a derived number, or a function of the fit. Where the
        function raises TableError (no budget reaches a loss) it is infinite."""

        def one(theta: np.ndarray) -> float:
            try:
                return self.fit.moved(theta).number(what)
            except TableError:
                if not callable(what):
                    raise
                return float("inf")

        return np.array([one(theta) for theta in self.thetas])

    def interval(self, what: str | Callable[[Fit], float], level: float = 0.95) -> tuple[float, float]:
        """The percentile interval of a number (Efron 1979): what of the resamples lies in the middle."""
        if not 0 < level < 1:
            raise TableError(f"level={level} isn't a share between 0 and 1, such as 0.95")
        draws = self.draws(what)
        if np.isnan(draws).any():
            return float("nan"), float("nan")
        method = "linear" if np.isfinite(draws).all() else "nearest"  # infinite draws are draws
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], method=method)
        return float(low), float(high)

    def standard_error(self, what: str | Callable[[Fit], float]) -> float:
        """The standard deviation over resamples."""
        return float(np.std(self.draws(what), ddof=1))

    @property
    def notes(self) -> tuple[str, ...]:
        lost = self.asked - len(self.thetas)
        if lost <= LOST * self.asked:
            return ()
        return (f"{lost} of {self.asked} resamples had no fit; intervals leave them out.",)


def bootstrap(fit: Fit, n: int = 1000, seed: int = 0, cluster: bool | None = None) -> Bootstrap:
    """Refits `fit` to `n` resamples of its runs, each from the optimum found.

    cluster: draw whole models, with all rows each has; by default where rows share a `model`.
    """
    if n < 2:
        raise TableError(f"n={n} resamples say nothing about a spread; take 1000")
    rng = np.random.default_rng(seed)
    labels = fit.runs.clusters()
    groups = int(labels.max()) + 1
    cluster = groups < len(labels) if cluster is None else cluster
    if not cluster:
        labels, groups = np.arange(len(labels)), len(labels)
    if groups < 5:
        raise TableError(f"a bootstrap over {groups} models means nothing; it needs at least 5, better 20")
    counts = rng.multinomial(groups, np.full(groups, 1 / groups), size=n).astype(float)[:, labels]
    found, values = [], []
    for first in range(0, n, CHUNK):
        weights = counts[first : first + CHUNK]
        problem, begin = fit.problem(weights), np.tile(fit.theta, (len(weights), 1))
        theta, value = solve(problem, begin, far=0)
        if fit.how.kind == "lad":  # each resample has corners of its own
            for k, own in enumerate(weights):
                theta[k] = polish(fit.problem(own), theta[k])
            value = problem.value(theta)
        found.append(theta)
        values.append(value)
    thetas, reached = np.concatenate(found), np.concatenate(values)
    return Bootstrap(fit, thetas[np.isfinite(reached)], n, cluster)
