"""The loss by position: what a model gains from what stands before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lm.config import ConfigError, config
from lm.data import Source, TaskData
from lm.data.examples import as_batch
from lm.evals.forward import teller
from lm.train.measure import Found, Look, Measure

if TYPE_CHECKING:
    from lm.train.step import Program


@config
class Positions(Measure):
    """Loss and accuracy at each position, over `examples` held-out rows; of a task, at each of a row's answers.

    loss: nats, the mean over positions; context_gain: see the function. Beside them stands what the task's theory
    gives for the same examples (`Task.golds`).
    """

    name: str = "positions"
    examples: int = 256

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ConfigError(f"examples={self.examples} must be at least 1")

    def prepare(self, program: Program, data: Source) -> Look:
        batches, golds = _rows(data, self.examples)
        tell, at = teller(program), _places(batches)
        known = {name.replace(" ", "_"): x.mean(0) for name, x in golds.items()}

        def look(params: Any) -> Found:
            sums = []
            for batch in batches:
                told = tell(params, batch)
                values = (-np.asarray(told.logprob), np.asarray(told.right), batch["weights"])
                sums.append([at(x, batch).sum(0, dtype=np.float64) for x in values])
            nats, right, weight = np.sum(sums, axis=0)
            counts = weight > 0  # places that no row has an answer at have no loss
            loss, accuracy = nats[counts] / weight[counts], right[counts] / weight[counts]
            found = {"loss": loss, "accuracy": accuracy, **known}
            means = {name: float(x.mean()) for name, x in found.items()}
            return Found(means | {"context_gain": context_gain(loss)}, {name: x.tolist() for name, x in found.items()})

        return look


def context_gain(loss: np.ndarray) -> float:
    """The loss at the 500th of 512 positions minus that at the 50th, or where those lie among more or fewer: the more
    negative, the more is learned from what stands before (Olsson et al. 2022, "In-context learning score")."""
    early, late = (max(round(place / 512 * len(loss)), 1) - 1 for place in (50, 500))
    return float(loss[late] - loss[early])


def _rows(data: Source, count: int) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Batches of held-out rows, and what theory gives for them."""
    if isinstance(data, TaskData):
        examples = data.test_examples(count=count)
        return [as_batch(examples)], dict(data.task.golds(examples))
    return list(data.load().heldout_batches(count)), {}


def _places(batches: Sequence[Any]) -> Callable[[np.ndarray, Any], np.ndarray]:
    """What takes values [n, L] of a batch to places [n, places]: the targets that count, in their order, where all rows
    have equally many of them; else all there are, with 0 where nothing counts."""
    counts = {int(count) for batch in batches for count in (batch["weights"] > 0).sum(1)}

    def at(x: np.ndarray, batch: Any) -> np.ndarray:
        counted = batch["weights"] > 0
        return x[counted].reshape(len(x), -1) if len(counts) == 1 else np.where(counted, x, 0.0)

    return at
