"""What a model says of rows of examples, at the tokens before each answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.errors import UserError
from lm.nn import param

if TYPE_CHECKING:
    from lm.data import Source, TaskData
    from lm.train.step import Program


class Told(NamedTuple):
    """Of each target of rows [n L]: its log-probability, whether it is the likeliest token, and the Brier score of the
    whole distribution, sum over v of (p_v - [v is the target])^2 (Brier 1950)."""

    logprob: jax.Array
    right: jax.Array
    brier: jax.Array


def teller(program: Program) -> Callable[[param.Params, Any], Told]:
    """A compiled function of parameters and a batch: tokens, targets, positions, segments [n L]."""
    return program.apply(lambda model, batch: told(logits_of(model, program, batch), batch["targets"]))


def told(logits: jax.Array, targets: jax.Array) -> Told:
    """Told of logits [n L V] and targets [n L]."""
    logp = jax.nn.log_softmax(logits)
    of_target = jnp.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]
    squares = jnp.sum(jnp.exp(2 * logp), axis=-1)
    brier = squares - 2 * jnp.exp(of_target) + 1
    # by logits: two that are nearly equal may be rounded to one log-probability
    return Told(of_target, jnp.argmax(logits, axis=-1) == targets, brier)


def logits_of(model: Any, program: Program, batch: Any) -> jax.Array:
    """Logits [n L V], float32."""
    return model(batch["tokens"], batch["positions"], batch["segments"], None, program.training.execution)


def of_task(data: Source, what: str) -> TaskData:
    """`data` if it is a task's. Raises UserError that names the measure otherwise."""
    from lm.data import TaskData

    if not isinstance(data, TaskData):
        raise UserError(f"{what} measures examples of a task, and this run reads {type(data).__name__}; use TaskData")
    return data
