"""Error and accuracy on tasks over loss: the second step of a law of downstream scores.

Gadre et al. 2024, "Language models scale reliably with over-training and on downstream tasks"; Bhagia et al. 2024,
"Establishing Task Scaling Laws via Compute-Efficient Model Ladders"; Grattafiori et al. 2024, "The Llama 3 Herd of
Models", section 3.2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law, positive
from lm.analysis.scaling.objective import Objective


@dataclass(frozen=True)
class TaskError(Law):
    """error = epsilon - k exp(-gamma L): the mean error over tasks falls from `epsilon`, that of guessing, as the loss
    L falls. x: the loss's column. error: a share, 1 - accuracy."""

    name = "task_error"
    floor = "epsilon"
    source = "Gadre et al. 2024"
    x: str = "loss"
    target: str = "error"
    parameters = (
        positive("epsilon", 0.3, 1.2),
        positive("k", 0.1, 20),
        positive("gamma", 0.1, 4),
    )
    objective = Objective("squared", on="value")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.x,)

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        return p.epsilon - p.k * np.exp(-p.gamma * x[self.x])


@dataclass(frozen=True)
class Accuracy(Law):
    """accuracy = floor + gain / (1 + exp(k (L - L_0))): a sigmoid of a task's loss, for one task.

    x: the loss's column: bits a byte of the right answers, which models with different tokenizers share. Half of the
    gain over `floor` is reached at L_0. Where all runs are near chance, fix `floor` there: fixed={"floor": 0.25}.
    """

    name = "accuracy"
    floor = "floor"
    source = "Bhagia et al. 2024; Grattafiori et al. 2024"
    x: str = "bits_per_byte"
    target: str = "accuracy"
    parameters = (
        positive("floor", 0.02, 0.6),
        positive("gain", 0.1, 0.9),
        positive("k", 0.5, 30),
        positive("L_0", 0.2, 4),
    )
    objective = Objective("squared", on="value")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.x,)

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        return p.floor + p.gain * (1 - np.tanh(p.k * (x[self.x] - p.L_0) / 2)) / 2  # a sigmoid that can't overflow


def bits_per_byte(loss: np.ndarray, tokens_per_byte: np.ndarray | float) -> np.ndarray:
    """Bits a byte of text, from nats a token and the tokens that a byte of that text takes."""
    return np.asarray(loss) / np.log(2) * tokens_per_byte
