"""What a law of size and tokens is for: the best use of a budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    if not {"params", "tokens"} <= set(fit.law.columns):
        raise TableError(f"the law {fit.law.name} isn't one of params and tokens: it has no optimum for a budget")
    if not flops > 0 or served < 0:
        raise TableError(f"a budget of {flops:g} FLOPs with {served:g} tokens served has no optimum")

    def tokens_at(params: Any) -> Any:
        return (flops - SERVE * params * served) / (6 * params)

    most = math.log(flops / (SERVE * served)) if served else math.inf  # beyond it, serving takes the whole budget

    def loss_at(size: np.ndarray) -> np.ndarray:
        params = np.exp(size)
        return fit.predict(params=params, tokens=tokens_at(params), **fixed)

    low, high = RANGE[0] * math.log(10), min(RANGE[1] * math.log(10), most - 1e-9)
    size, edge = _least(loss_at, low, high)
    params = math.exp(size)
    training = 6 * params * tokens_at(params)
    notes = extrapolation(fit, training, limit)
    if edge:
        notes.append("The loss is least at the end of the sizes that were tried: the law has no optimum there.")
    return Optimum(training, params, tokens_at(params), float(loss_at(np.array(size))), flops, tuple(notes))


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
        return optimum(fit, math.exp(log_flops)).loss - loss

    low, high = math.log(1e6), math.log(1e40)
    if short(high) > 0:
        raise TableError(f"a loss of {loss:g} is below what the law reaches with any budget")
    if short(low) < 0:
        return math.exp(low)
    return math.exp(brentq(short, low, high, xtol=1e-8))  # type: ignore[arg-type]


def cost_of(fit: Fit, params: float, tokens: float) -> float:
    """How many times the least budget for its loss a model of this size and these tokens costs; 1 is optimal."""
    return 6 * params * tokens / budget_for(fit, fit.predict(params=params, tokens=tokens))


def _least(function: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> tuple[float, bool]:
    """Where a function of one variable is least, and whether that is an end of the range: by finer and finer grids."""
    left, right, edge = low, high, False
    while right - left > 1e-7:
        grid = np.linspace(left, right, 65)
        with np.errstate(all="ignore"):
            values = function(grid)
        at = int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
        edge = grid[at] in (low, high)
        left, right = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    return (left + right) / 2, edge
