"""What a relative position does inside attention: it turns queries and keys, or it adds a bias to the scores."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import jax
from flax import nnx

from lm.nn.cost import Cost
from lm.shapes import Array, Float, Int

Bias = Callable[[jax.Array, jax.Array], jax.Array]  # (q_positions [B L], k_positions [B S]) -> [B H L S]


class RelativePosition(abc.ABC):
    """A kind of relative position, one alternative of `Attention.position`."""

    @abc.abstractmethod
    def build(self, heads: int, head_width: int, *, rngs: nnx.Rngs) -> RelativeLayer: ...

    def cost(self, heads: int, head_width: int) -> Cost:
        """What it adds to attention. Raises ConfigError if it doesn't fit heads of this width."""
        return Cost()


class RelativeLayer(nnx.Module):
    """The form that does nothing; each kind of position replaces one of the two."""

    bias: Bias | None = None

    def rotate(self, x: Float[Array, "B L H P"], positions: Int[Array, "B L"]) -> Float[Array, "B L H P"]:
        return x

    def scale(self, width: int) -> float:
        """What scores of queries and keys of this width are multiplied by where attention has no scale of its own."""
        return 1 / math.sqrt(width)
