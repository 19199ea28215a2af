"""What a layer says besides its output: a term of the loss, and numbers worth watching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Aux(NamedTuple):
    """loss: added to the objective as it is, its weight already in it; metrics: named scalars, for the rows only.

    Layers of a stack add up their losses and average each metric over the layers that have it.
    """

    loss: jax.Array | float = 0.0
    metrics: dict[str, jax.Array] = {}  # noqa: RUF012 -- never changed


def joined(parts: Sequence[Any]) -> Aux:
    """The Aux of several layers; each of `parts` is one layer's, or that of equal layers stacked along an axis."""
    loss = sum((jnp.sum(part.loss) for part in parts), jnp.zeros(()))
    found: dict[str, list[jax.Array]] = {}
    for part in parts:
        for name, value in part.metrics.items():
            found.setdefault(name, []).append(jnp.ravel(value))
    return Aux(loss, {name: jnp.mean(jnp.concatenate(values)) for name, values in found.items()})
