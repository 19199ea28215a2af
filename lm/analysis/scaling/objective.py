"""What a fit makes small: a function of the residuals, summed over the runs.

A residual is log(predicted) - log(observed), or predicted - observed, as `on` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lm.analysis.tables import TableError

Kind = Literal["huber", "lad", "squared"]
On = Literal["log", "value"]


@dataclass(frozen=True)
class Objective:
    """huber: r^2/2 up to |r| = delta, delta (|r| - delta/2) beyond (Huber 1964). lad: |r|. squared: r^2/2."""

    kind: Kind = "huber"
    delta: float = 1e-3
    on: On = "log"

    def __post_init__(self) -> None:
        if self.kind not in ("huber", "lad", "squared"):
            raise TableError(f"there is no objective '{self.kind}'; there are huber, lad and squared")
        if self.on not in ("log", "value"):
            raise TableError(f"an objective is on 'log' or 'value', not '{self.on}'")
        if self.kind == "huber" and not self.delta > 0:
            raise TableError(f"delta={self.delta} must be positive")

    def loss(self, r: np.ndarray) -> np.ndarray:
        """Of each residual."""
        size = np.abs(r)
        if self.kind == "squared":
            return size * size / 2
        if self.kind == "lad":
            return size
        inside = np.minimum(size, self.delta)
        return inside * (size - inside / 2)

    def slope(self, r: np.ndarray) -> np.ndarray:
        """The derivative of `loss`."""
        if self.kind == "squared":
            return r
        return np.sign(r) if self.kind == "lad" else np.clip(r, -self.delta, self.delta)

    def weight(self, r: np.ndarray) -> np.ndarray:
        """slope / r: the weight of a residual in the least squares that touch the objective from above."""
        if self.kind == "squared":
            return np.ones_like(r)
        floor = 1e-12 if self.kind == "lad" else self.delta
        return (1.0 if self.kind == "lad" else self.delta) / np.maximum(np.abs(r), floor)

    def smooth(self, delta: float) -> Objective:
        """The Huber function that goes to least absolute deviations as delta goes to 0 (times delta)."""
        return Objective("huber", delta, self.on)

    def __str__(self) -> str:
        names = {"lad": "least absolute deviations", "squared": "least squares"}
        name = names.get(self.kind, f"Huber (delta {self.delta:g})")
        return f"{name} on {'log loss' if self.on == 'log' else 'the value'}"
