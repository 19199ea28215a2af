"""Which runs to train for a budget, so that a law is known best where it matters; and what a budget can show at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from lm.analysis.scaling.law import Law
from lm.analysis.scaling.laws import law_of
from lm.analysis.tables import TableError

ROUNDS = 20  # of exchanges
STEP = 1e-4  # of coordinates, for the slope of a target


@dataclass(frozen=True)
class Design:
    """Runs chosen for a budget. runs: params, tokens, flops, count (how many seeds). error: the standard error of the
    target that they will give, if the law and the noise are as was assumed."""

    runs: pd.DataFrame
    flops: float
    target: str
    error: float
    table: pd.DataFrame  # budget spent, error, as runs were added

    def detects(self, power: float = 0.8, level: float = 0.95) -> float:
        """The smallest difference of the target between two such sweeps that is seen with this power."""
        return float((norm.ppf((1 + level) / 2) + norm.ppf(power)) * math.sqrt(2) * self.error)


def design(
    law: str | Law,
    params: Mapping[str, float],
    candidates: pd.DataFrame,
    budget: float,
    *,
    target: str | Callable[[Mapping[str, float]], float] = "a",
    noise: float = 0.005,
    least: int | None = None,
    repeats: int = 3,
) -> Design:
    """Chooses runs among `candidates` (the law's columns and flops) that make the standard error of `target` least.

    params: what the law is believed to be (a guess, or a fit of what there is). noise: the deviation of log(loss)
    from run to run. target: a parameter, a derived number, or a function of the parameters, such as the loss at a
    budget. Runs are added one by one, each that which lowers the variance most for its FLOPs, then exchanged while
    that helps (c-optimal design; Fedorov 1972). A run may be chosen again: that is another seed.
    least: how many different runs there must be (default: two more than the law has parameters). repeats: how often
    one may be chosen at most.
    Raises TableError where the budget isn't enough for that.
    """
    made = law_of(law)
    least = len(made.parameters) + 2 if least is None else least
    flops = candidates["flops"].to_numpy(float)
    rows, aim = _slopes(made, params, candidates, noise), _slope(made, params, target)
    name = target if isinstance(target, str) else "target"
    chosen = _cheapest_basis(rows, flops, least, budget)
    spent, history = float(flops[chosen].sum()), []
    while True:
        variance, gain = _gains(rows, chosen, aim)
        history.append({"flops": spent, "runs": len(chosen), "error": math.sqrt(variance)})
        open_ = (flops <= budget - spent) & (np.bincount(chosen, minlength=len(flops)) < repeats)
        if not open_.any():
            break
        worth = np.where(open_, gain / flops, -np.inf)
        best = int(np.argmax(worth))
        if gain[best] <= 1e-9 * variance:
            break
        chosen.append(best)
        spent += float(flops[best])
    chosen = _exchanged(rows, flops, chosen, aim, budget, repeats, least)
    counts = pd.Series(chosen).value_counts().sort_index()
    table = candidates.iloc[counts.index.to_numpy()].assign(count=counts.to_numpy()).reset_index(drop=True)
    error = math.sqrt(_gains(rows, chosen, aim)[0])
    return Design(table, float(flops[chosen].sum()), name, error, pd.DataFrame(history))


def grid_error(
    law: str | Law, params: Mapping[str, float], runs: pd.DataFrame, *, target: str = "a", noise: float = 0.005
) -> float:
    """The standard error of `target` that the given runs will give: to compare a design with a grid."""
    made = law_of(law)
    rows = _slopes(made, params, runs, noise)
    return math.sqrt(_gains(rows, list(range(len(rows))), _slope(made, params, target))[0])


def _slopes(law: Law, params: Mapping[str, float], runs: pd.DataFrame, noise: float) -> np.ndarray:
    """How the logarithm of each run's loss changes with each coordinate [n, p], in units of the noise."""
    x = {name: runs[name].to_numpy(float) for name in law.columns}
    found, slopes = law.slopes(law.coordinates(params)[None], x)
    return (slopes[0] / found[0]).T / noise


def _slope(law: Law, params: Mapping[str, float], target: str | Callable[[Mapping[str, float]], float]) -> np.ndarray:
    """How the target changes with each coordinate."""
    theta = law.coordinates(params)

    def value(at: np.ndarray) -> float:
        given = law.values(at)
        if callable(target):
            return float(target(given))
        known = {**given, **law.derived(given)}
        if target not in known:
            raise TableError(f"the law {law.name} has no '{target}'; it has {', '.join(known)}")
        return known[target]

    moves = STEP * np.eye(len(theta))
    return np.array([(value(theta + m) - value(theta - m)) / (2 * STEP) for m in moves])


def _cheapest_basis(rows: np.ndarray, flops: np.ndarray, least: int, budget: float) -> list[int]:
    """Different runs, spread over what the law can tell apart and none dearer than need be, to begin with."""
    if len(rows) < least:
        raise TableError(f"{len(rows)} candidates aren't enough; the law needs {least} different runs")
    chosen: list[int] = []
    information = 1e-8 * np.eye(rows.shape[1])
    for left in range(least, 0, -1):
        inverse = np.linalg.inv(information)
        new = np.log1p(np.einsum("ni,ij,nj->n", rows, inverse, rows)) / flops**0.25
        new[chosen] = -np.inf
        affordable = flops <= (budget - flops[chosen].sum()) / left
        if not (affordable & np.isfinite(new)).any():
            cheapest = np.sort(flops)[:least].sum()
            raise TableError(
                f"{budget:.3g} FLOPs aren't enough for {least} different runs; the cheapest take {cheapest:.3g}"
            )
        best = int(np.argmax(np.where(affordable, new, -np.inf)))
        chosen.append(best)
        information = information + np.outer(rows[best], rows[best])
    return chosen


def _gains(rows: np.ndarray, chosen: Sequence[int], aim: np.ndarray) -> tuple[float, np.ndarray]:
    """The target's variance, and by how much one more of each run would lower it (Sherman and Morrison 1950)."""
    mine = rows[list(chosen)]
    inverse = np.linalg.inv(mine.T @ mine + 1e-8 * np.eye(rows.shape[1]))
    variance = float(aim @ inverse @ aim)
    along = rows @ inverse @ aim
    leverage = np.einsum("ni,ij,nj->n", rows, inverse, rows)
    return variance, along**2 / (1 + leverage)


def _exchanged(
    rows: np.ndarray, flops: np.ndarray, chosen: list[int], aim: np.ndarray, budget: float, repeats: int, least: int
) -> list[int]:
    """Swaps a chosen run for another while that lowers the variance within the budget."""
    chosen = list(chosen)
    for _ in range(ROUNDS):
        variance, spent, better = _gains(rows, chosen, aim)[0], float(flops[chosen].sum()), None
        full = np.bincount(chosen, minlength=len(flops)) >= repeats
        for place in {run: k for k, run in enumerate(chosen)}.values():  # one of each, they are alike
            rest = chosen[:place] + chosen[place + 1 :]
            short = len(set(rest)) < least  # then only a run that isn't there may come in
            without, gain = _gains(rows, rest, aim)
            allowed = (flops <= budget - spent + flops[chosen[place]]) & ~full
            if short:
                allowed[rest] = False
            new = np.where(allowed, without - gain, np.inf)
            best = int(np.argmin(new))
            if new[best] < variance * (1 - 1e-6):
                variance, better = float(new[best]), (place, best)
        if better is None:
            break
        chosen[better[0]] = better[1]
    return chosen
