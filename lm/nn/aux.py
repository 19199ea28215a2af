"""What a layer says besides its output: a term of the loss, and numbers worth watching."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Aux(NamedTuple):
    """loss: added to the objective as it is, its weight already in it; metrics: named scalars, for the rows only.

    Layers of a stack add up their losses and average each metric over the layers that have it. later: see `pooled`.
    """

    loss: jax.Array | float = 0.0
    metrics: dict[str, jax.Array] = {}  # noqa: RUF012 -- never changed
    later: tuple[Later, ...] = ()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Later:
    """An Aux that will be `of(means)`."""

    means: Any
    of: Callable[[Any], Aux] = field(metadata={"static": True})


_in_parts: ContextVar[bool] = ContextVar("in_parts", default=False)


@contextlib.contextmanager
def in_parts() -> Iterator[None]:
    """A scope in which layers are given a part of the batch, one of several that are as large."""
    token = _in_parts.set(True)
    try:
        yield
    finally:
        _in_parts.reset(token)


def pooled(of: Callable[[Any], Aux], means: Any) -> Aux:
    """`of(means)` for means over all rows of the batch. In a part of it that has to wait for those of all parts."""
    return Aux(later=(Later(means, of),)) if _in_parts.get() else of(means)


def whole(aux: Any) -> list[Aux]:
    """What equal layers say, their arrays stacked along axes in front and averaged over the parts of the batch."""
    flat = lambda x: x.reshape(-1, *x.shape[jnp.ndim(aux.loss) :])  # noqa: E731
    return [Aux(aux.loss, aux.metrics), *(jax.vmap(one.of)(jax.tree.map(flat, one.means)) for one in aux.later)]


def joined(parts: Sequence[Any]) -> Aux:
    """The Aux of several layers; each of `parts` is one layer's, or that of equal layers stacked along an axis."""
    loss = sum((jnp.sum(part.loss) for part in parts), jnp.zeros(()))
    found: dict[str, list[jax.Array]] = {}
    for part in parts:
        for name, value in part.metrics.items():
            found.setdefault(name, []).append(jnp.ravel(value))
    metrics = {name: jnp.mean(jnp.concatenate(values)) for name, values in found.items()}
    return Aux(loss, metrics, tuple(one for part in parts for one in part.later))
