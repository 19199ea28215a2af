"""The loss by position: what a model gains from what stands before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lm.config import ConfigError, config
from lm.data import Source, TaskData
from lm.data.examples import as_batch
from lm.evals.forward import teller
from lm.train.measure import Found, Look, Measure

if TYPE_CHECKING:
    from lm.train.step import Program

EARLY, LATE = 50 / 512, 500 / 512  # of the positions (Olsson et al. 2022, "In-context learning score")


@config
class Positions(Measure):
    """Loss and accuracy at each position, over `examples` held-out rows; of a task, at each of a row's answers.

    loss: nats, the mean over positions; context_gain: loss at the 500th of 512 positions minus that at the 50th, or
    where those lie in rows of another length: the more negative, the more is learned from what stands before (Olsson
    et al. 2022). Beside them stands what the task's theory gives for the same examples (`Task.golds`).
    """

    name: str = "positions"
    examples: int = 256

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ConfigError(f"examples={self.examples} must be at least 1")

    def prepare(self, program: Program, data: Source) -> Look:
        batches, golds = _rows(data, self.examples)
        tell = teller(program)
        known = {name.replace(" ", "_"): x.mean(0) for name, x in golds.items()}

        def look(params: Any) -> Found:
            nats = right = weight = np.float64(0)
            for batch in batches:
                found, w = tell(params, batch), _by_answer(batch["weights"], batch["weights"])
                nats = nats + _by_answer(-np.asarray(found.logprob, np.float64), batch["weights"]).sum(0)
                right = right + _by_answer(np.asarray(found.right, np.float64), batch["weights"]).sum(0)
                weight = weight + w.sum(0)
            counts = weight > 0  # places that no row has an answer at have no loss
            loss, accuracy = nats[counts] / weight[counts], right[counts] / weight[counts]
            places = len(loss)
            gain = loss[min(round(LATE * places), places - 1)] - loss[min(round(EARLY * places), places - 1)]
            numbers = {"loss": float(loss.mean()), "accuracy": float(accuracy.mean()), "context_gain": float(gain)}
            numbers |= {name: float(x.mean()) for name, x in known.items()}
            return Found(numbers, {"loss": loss.tolist(), "accuracy": accuracy.tolist(), **_lists(known)})

        return look


def _rows(data: Source, count: int) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Batches of held-out rows, and what theory gives for them."""
    if isinstance(data, TaskData):
        examples = data.test_examples(count=count)
        return [as_batch(examples)], dict(data.task.golds(examples))
    return list(data.load().heldout_batches(count)), {}


def _by_answer(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The values [n, L] at the targets that count, in their order, where all rows have equally many; else all places,
    0 where nothing counts."""
    counts = (weights > 0).sum(1)
    if len(set(counts.tolist())) == 1:
        return x[weights > 0].reshape(len(x), -1)
    return np.where(weights > 0, x, 0.0)


def _lists(arrays: dict[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: x.tolist() for name, x in arrays.items()}
