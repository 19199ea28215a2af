"""What a pretraining objective answers."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax
import numpy as np

from lm.config import ConfigError
from lm.data.packing import Batch as HostBatch
from lm.data.tokenizers import Codec
from lm.models.execution import Execution
from lm.models.model import Model
from lm.nn.cost import Cost
from lm.objectives.draws import Draws

# tokens, targets, positions, segments int32 [B L]; weights float32 [B L]; and what else the objective puts there
Batch = dict[str, jax.Array]


class Sums(NamedTuple):
    """Sums over the tokens of a batch, so that parts of a batch add up to the whole. Float32 scalars.

    loss: what is trained; nats: the negative log-likelihood of the targets alone; tokens: the targets' weight;
    correct: the weight of targets that were the likeliest token; watched: the layers' own metrics, times tokens.
    """

    loss: jax.Array
    nats: jax.Array
    tokens: jax.Array
    correct: jax.Array
    watched: dict[str, jax.Array]


class Objective(abc.ABC):
    """A training loss as a function of a model and a batch.

    `prepare` makes that batch of packed documents. Their text is `targets`: every token of it occurs there once, a
    document ends with `eot` unless it goes on in another row, and `weights` say which tokens count. A prepared batch
    has `targets` and `weights` too, of any length, with a weight above 0 for each target whose nats are summed.
    """

    @abc.abstractmethod
    def __call__(self, model: Any, batch: Batch, execution: Execution) -> Sums: ...

    @property
    def extra(self) -> int:
        """How many tokens it needs besides the data's: their ids are data.vocab, data.vocab + 1, ..."""
        return 0

    def check(self, model: Model, length: int) -> None:
        """Raises ConfigError where `model` can't learn this from rows of `length` tokens."""
        model.check_context(length)

    def cost(self, model: Model, length: int) -> Cost:
        """The cost of what becomes of a row of `length` tokens, taken as one document."""
        return model.cost(length)

    def prepare(self, batch: HostBatch, draws: Draws, codec: Codec, model: Model) -> HostBatch:
        """What the loss reads, on the host. Arrays have the rows first, and shapes that follow from the batch's."""
        return batch

    def blanked(self, batch: HostBatch, place: int, codec: Codec, model: Model) -> HostBatch:
        """What asks for the target at `place` of each row, given as much of the rest as this objective lets a model
        see: a prepared batch in which nothing else counts. Rows are one document each, and that target isn't its end.

        Raises ConfigError for an objective that doesn't ask for single tokens.
        """
        raise ConfigError(f"{type(self).__name__} doesn't ask for a single token of a row")


def only(batch: HostBatch, place: int) -> np.ndarray:
    """Weights [B L] of the targets at one place."""
    weights = np.zeros_like(batch["weights"])
    weights[:, place] = 1
    return weights
