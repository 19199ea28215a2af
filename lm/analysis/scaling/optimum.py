"""What a law of size and tokens is for: the best use of a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq

from lm.analysis.tables import TableError

if TYPE_CHECKING:
    from lm.analysis.scaling.fitting import Fit

FAR = 10.0  # budgets more than so many times the largest that was seen are said to be extrapolations
RANGE = (2.0, 18.0)  # log10 of the parameters that are considered
SERVE = 2.0  # FLOPs a parameter and a token of inference; training takes 6


@dataclass(frozen=True)
class Optimum:
    """The best model of a budget. flops: of training; lifetime: with what is served, the same where nothing is."""

    flops: float
    params: float
    tokens: float
    loss: float
    lifetime: float
    notes: tuple[str, ...] = ()

    @property
    def tokens_per_param(self) -> float:
        return self.tokens / self.params


def optimum(fit: Fit, flops: float, *, served: float = 0.0, limit: float = FAR, **fixed: float) -> Optimum:
    """The size and tokens of least loss for `flops` = 6 params tokens + 2 params `served`.

    served: tokens the model will read and write in its life (Sardana et al. 2024): their cost is paid from the same
    budget, so the best model becomes smaller and is trained longer. fixed: the law's other columns, e.g.
    unique_tokens=1e9. limit: how far beyond the largest run a budget may be before a note says so.
    Raises TableError for a law without params and tokens, or with a column that isn't given.
    """
    if not flops > 0 or served < 0:
        raise TableError(f"a budget of {flops:g} FLOPs with {served:g} tokens served has no optimum")
    size, edge = best_sizes(fit, np.array([flops]), served, **fixed)
    params = float(size[0])
    tokens = (flops - SERVE * params * served) / (6 * params)
    notes = extrapolation(fit, 6 * params * tokens, limit)
    if edge[0]:
        notes.append("The loss is least at the end of the sizes that were tried: the law has no optimum there.")
    loss = fit.predict(params=params, tokens=tokens, **fixed)
    return Optimum(6 * params * tokens, params, tokens, loss, flops, tuple(notes))


def best_sizes(fit: Fit, flops: np.ndarray, served: float = 0.0, **fixed: float) -> tuple[np.ndarray, np.ndarray]:
    """The sizes of least loss for budgets [n], and whether each is an end of the range: by finer and finer grids."""
    if not {"params", "tokens"} <= set(fit.law.columns):
        raise TableError(f"the law {fit.law.name} isn't one of params and tokens: it has no optimum for a budget")
    first = np.full(len(flops), RANGE[0] * math.log(10))
    last = np.full(len(flops), RANGE[1] * math.log(10))
    if served:  # beyond this size serving takes the whole budget
        last = np.minimum(last, np.log(flops / (SERVE * served)) - 1e-9)
    if (last <= first).any():
        raise TableError(
            f"serving {served:g} tokens takes all of a budget of {flops.min():g} FLOPs; nothing is left to train"
        )
    left, right, row = first, last, np.arange(len(flops))
    edge = np.zeros(len(flops), bool)
    while np.max(right - left) > 1e-7:
        grid = left[:, None] + (right - left)[:, None] * np.linspace(0, 1, 65)
        params = np.exp(grid)
        with np.errstate(all="ignore"):
            loss = fit.predict(params=params, tokens=(flops[:, None] / params - SERVE * served) / 6, **fixed)
        at = np.argmin(np.where(np.isfinite(loss), loss, np.inf), axis=1)
        edge = (grid[row, at] == first) | (grid[row, at] == last)
        left, right = grid[row, np.maximum(at - 1, 0)], grid[row, np.minimum(at + 1, grid.shape[1] - 1)]
    return np.exp((left + right) / 2), edge


def best_losses(fit: Fit, flops: np.ndarray, **fixed: float) -> np.ndarray:
    """The least loss for each of many budgets [n]."""
    params, _ = best_sizes(fit, flops, **fixed)
    return fit.predict(params=params, tokens=flops / (6 * params), **fixed)


def extrapolation(fit: Fit, flops: float, limit: float = FAR) -> list[str]:
    """A sentence where a budget is far beyond the runs."""
    if "flops" not in fit.runs.frame.columns:
        return []
    seen = float(fit.runs.column("flops").max())
    if flops <= limit * seen:
        return []
    return [f"{flops:.3g} FLOPs are {flops / seen:,.0f} times the largest run's: the law was never tested there."]


def budget_for(fit: Fit, loss: float) -> float:
    """The least training FLOPs that reach `loss`. Raises TableError where no budget does."""

    def short(log_flops: float) -> float:
        return float(best_losses(fit, np.exp([log_flops]))[0]) - loss

    low, high = math.log(1e6), math.log(1e40)
    if short(high) > 0:
        raise TableError(f"a loss of {loss:g} is below what the law reaches with any budget")
    if short(low) < 0:
        return math.exp(low)
    return math.exp(brentq(short, low, high, xtol=1e-8))  # type: ignore[arg-type]


def cost_of(fit: Fit, params: float, tokens: float) -> float:
    """How many times the least budget for its loss a model of this size and these tokens costs; 1 is optimal."""
    return 6 * params * tokens / budget_for(fit, fit.predict(params=params, tokens=tokens))
