"""Power laws of the best learning rate and batch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law, Parameter, positive, real
from lm.analysis.scaling.objective import Objective


@dataclass(frozen=True)
class Power(Law):
    """target = scale prod_i x_i^e_i, where each row is the optimum of its budget, or of its size and tokens.

    over: the columns x_i. The exponents are named `of_COLUMN`. Least squares on logarithms.
    """

    name = "power"
    over: tuple[str, ...] = ("flops",)
    target: str = "loss"
    objective = Objective("squared")

    @property
    def columns(self) -> tuple[str, ...]:
        return self.over

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (positive("scale", 1e-4, 1e4, linear=True), *(real(f"of_{column}", -1, 1) for column in self.over))

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        return p.scale * np.exp(sum(getattr(p, f"of_{column}") * np.log(x[column]) for column in self.over))


@dataclass(frozen=True)
class LearningRate(Power):
    """The best peak learning rate, scale N^of_params D^of_tokens (the "Step Law", Li et al. 2025); with
    over=("flops",) scale C^of_flops (DeepSeek-AI 2024)."""

    name = "learning_rate"
    source = "Li et al. 2025; DeepSeek-AI 2024"
    over: tuple[str, ...] = ("params", "tokens")
    target: str = "learning_rate"


@dataclass(frozen=True)
class BatchSize(Power):
    """The best batch, in tokens, scale D^of_tokens (the "Step Law", Li et al. 2025); with over=("flops",)
    scale C^of_flops (DeepSeek-AI 2024)."""

    name = "batch_size"
    source = "Li et al. 2025; DeepSeek-AI 2024"
    over: tuple[str, ...] = ("tokens",)
    target: str = "batch"
