"""What compute buys: the runs that nothing cheaper beats, and how much cheaper one method is than another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lm.analysis.scaling.bootstrap import Bootstrap
from lm.analysis.scaling.fitting import Fit
from lm.analysis.scaling.law import Columns
from lm.analysis.scaling.optimum import budget_for, extrapolation, optimum
from lm.analysis.scaling.runs import RunTable
from lm.analysis.tables import TableError


def frontier(runs: RunTable) -> RunTable:
    """The runs of which no other has less loss for the same FLOPs or fewer (Pareto), cheapest first."""
    flops, loss = runs.column("flops"), runs.column("loss")
    order = np.lexsort((loss, flops))
    best = np.minimum.accumulate(np.concatenate([[np.inf], loss[order][:-1]]))
    kept = order[loss[order] < best]
    frame = runs.frame.iloc[kept].reset_index(drop=True)
    return RunTable(
        frame, runs.formula, runs.source, (*runs.notes, f"{len(frame)} of {len(runs)} runs on the frontier")
    )


@dataclass(frozen=True)
class Multiplier:
    """How many times more compute the old method needs for the loss that the new one reaches; above 1 is a gain."""

    flops: float
    loss: float
    value: float
    low: float
    high: float
    level: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] at {self.flops:.3g} FLOPs"


def multiplier(
    old: Fit, new: Fit, flops: float, *, n: int = 300, seed: int = 0, level: float = 0.95, limit: float = 10.0
) -> Multiplier:
    """The compute multiplier of `new` over `old`: each method's best model of a budget, by its own law.

    The loss that the new method reaches with `flops` is what the old one reaches with `value` times as much. The
    interval is of bootstraps of both. Raises TableError where the losses aren't of the same text.
    """
    same_text(old.runs, new.runs)
    value = _ratio(old, new, flops)
    draws = np.array([_ratio(old.moved(a), new.moved(b), flops) for a, b in _pairs(old, new, n, seed)])
    draws = np.where(np.isnan(draws), np.inf, draws)  # a loss that the old method reaches with no budget
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    notes = {*extrapolation(old, flops * min(value, 1e6), limit), *extrapolation(new, flops, limit)}
    return Multiplier(flops, optimum(new, flops).loss, value, float(low), float(high), level, tuple(sorted(notes)))


def same_text(a: RunTable, b: RunTable) -> None:
    """Raises TableError if both tables say on which text they were evaluated, and it isn't the same."""
    texts = [set(map(str, t.frame["evaluation"])) if "evaluation" in t.frame.columns else set() for t in (a, b)]
    if texts[0] and texts[1] and texts[0] != texts[1]:
        raise TableError(f"the losses are of different texts: {sorted(texts[0])} and {sorted(texts[1])}")


def _pairs(old: Fit, new: Fit, n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    first, second = old.bootstrap(n, seed), new.bootstrap(n, seed + 1)
    return list(zip(first.thetas, second.thetas, strict=False))


def _ratio(old: Fit, new: Fit, flops: float) -> float:
    try:
        return budget_for(old, optimum(new, flops).loss) / flops
    except TableError:
        return float("nan")


def bands(
    boot: Bootstrap, columns: Columns, level: float = 0.95, *, prediction: bool = False, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper edge, at each point of the law's `columns`, of where the law may be (confidence), or of where
    the loss of a new run may be (prediction: with the residuals of the fit, drawn again)."""
    fit = boot.fit
    draws = np.array([fit.moved(theta).predict(**columns) for theta in boot.thetas])
    if prediction:
        # residuals of a fit are a little too small: it was bent towards them
        free = np.sqrt(len(fit.runs) / (len(fit.runs) - len(fit.law.parameters)))
        log_errors = np.log(fit.observed / fit.predicted) * free
        draws = draws * np.exp(np.random.default_rng(seed).choice(log_errors, draws.shape))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
