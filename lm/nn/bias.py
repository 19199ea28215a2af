"""Relative positions that add a bias to the attention scores: ALiBi and T5's buckets."""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, config
from lm.nn.cost import Cost, weights
from lm.nn.param import normal, param
from lm.nn.relative import RelativeLayer, RelativePosition
from lm.shapes import Array, Float, Int


@config
class ALiBi(RelativePosition):
    """Subtracts slope x distance from the score (Press et al. 2022). Slopes are 2^(-max_exponent i / heads)."""

    max_exponent: float = 8.0

    def __post_init__(self) -> None:
        if self.max_exponent <= 0:
            raise ConfigError(f"max_exponent={self.max_exponent} must be above 0: a slope is 2^-exponent")

    def build(self, heads: int, head_width: int, *, rngs: nnx.Rngs) -> ALiBiLayer:
        return ALiBiLayer(self, heads)

    def slopes(self, heads: int) -> list[float]:
        """One slope a head. Heads that aren't a power of two take every other slope of the next one (paper, code)."""
        power = 2 ** math.floor(math.log2(heads))
        slopes = [2 ** (-self.max_exponent * i / power) for i in range(1, power + 1)]
        return slopes + [2 ** (-self.max_exponent * i / (2 * power)) for i in range(1, 2 * power, 2)][: heads - power]


class ALiBiLayer(RelativeLayer):
    def __init__(self, spec: ALiBi, heads: int):
        self.slopes = tuple(spec.slopes(heads))

    def bias(self, q_positions: Int[Array, "B L"], k_positions: Int[Array, "B S"]) -> Float[Array, "B H L S"]:
        distance = jnp.abs(q_positions[:, :, None] - k_positions[:, None, :]).astype(jnp.float32)
        return -jnp.asarray(self.slopes)[:, None, None] * distance[:, None]


@config
class T5Bias(RelativePosition):
    """A learned bias for each head and bucket of distances, logarithmic from half the buckets (Raffel et al. 2020).

    bidirectional: half of the buckets are for keys after the query (encoders); otherwise those share bucket 0.
    shared: the table is one for all layers (of a stack), as in the paper.
    """

    buckets: int = 32
    max_distance: int = 128
    bidirectional: bool = False
    shared: bool = True

    def __post_init__(self) -> None:
        one_sided = self.buckets // 2 if self.bidirectional else self.buckets
        if one_sided < 2 or self.buckets % 2:
            raise ConfigError(f"buckets={self.buckets} must be even and leave at least 2 for a direction")
        if self.max_distance <= one_sided // 2:
            raise ConfigError(f"max_distance={self.max_distance} must exceed the {one_sided // 2} exact buckets")

    def build(self, heads: int, head_width: int, *, rngs: nnx.Rngs) -> T5BiasLayer:
        return T5BiasLayer(self, heads, rngs=rngs)

    def cost(self, heads: int, head_width: int) -> Cost:
        table = weights(self.buckets * heads)
        return table.all_shared() if self.shared else table

    def bucket(self, offset: Int[Array, "*any"]) -> Int[Array, "*any"]:
        """The bucket of key position minus query position."""
        buckets, first = self.buckets, 0
        if self.bidirectional:
            buckets //= 2
            first = jnp.where(offset > 0, buckets, 0)
        distance = jnp.abs(offset) if self.bidirectional else jnp.maximum(-offset, 0)
        exact = buckets // 2
        ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(self.max_distance / exact)
        far = exact + (ratio * (buckets - exact)).astype(jnp.int32)
        return first + jnp.where(distance < exact, distance, jnp.minimum(far, buckets - 1))


class T5BiasLayer(RelativeLayer):
    def __init__(self, spec: T5Bias, heads: int, *, rngs: nnx.Rngs):
        self.spec = spec
        self.table = param(rngs, (spec.buckets, heads), ("buckets", "heads"), normal(0.02), shared=spec.shared)

    def bias(self, q_positions: Int[Array, "B L"], k_positions: Int[Array, "B S"]) -> Float[Array, "B H L S"]:
        bucket = self.spec.bucket(k_positions[:, None, :] - q_positions[:, :, None])
        return jnp.moveaxis(self.table[...].astype(jnp.float32)[bucket], -1, 1)
