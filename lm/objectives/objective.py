"""What a pretraining objective answers."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax

from lm.models.execution import Execution

Batch = dict[str, jax.Array]  # tokens, targets, positions, segments int32 [B L]; weights float32 [B L]


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
    """A training loss as a function of a model and a batch."""

    @abc.abstractmethod
    def __call__(self, model: Any, batch: Batch, execution: Execution) -> Sums: ...
