"""Positions added to the token embeddings: learned and sinusoidal. Relative ones are in `rope` and `bias`."""

from __future__ import annotations

import abc

import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, config
from lm.nn.cost import Cost, weights
from lm.nn.param import normal, param
from lm.shapes import Array, Float, Int


class AbsolutePosition(abc.ABC):
    """A vector for each position, added to the token's. `layer(positions [B L]) -> [B L D]`."""

    @abc.abstractmethod
    def build(self, width: int, *, rngs: nnx.Rngs) -> nnx.Module: ...

    @abc.abstractmethod
    def cost(self, width: int) -> Cost: ...

    def limit(self) -> int | None:
        """The number of positions there are, or None where any will do."""
        return None


@config
class Learned(AbsolutePosition):
    """A table of `length` positions (Gehring et al. 2017). A later position gives NaN: it has no vector."""

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"length={self.length} learned positions: there must be at least 1")

    def build(self, width: int, *, rngs: nnx.Rngs) -> LearnedLayer:
        return LearnedLayer(self, width, rngs=rngs)

    def cost(self, width: int) -> Cost:
        return weights(self.length * width)

    def limit(self) -> int | None:
        return self.length


class LearnedLayer(nnx.Module):
    def __init__(self, spec: Learned, width: int, *, rngs: nnx.Rngs):
        self.table = param(rngs, (spec.length, width), ("positions", "embed"), normal(0.02))

    def __call__(self, positions: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        return jnp.take(self.table[...], positions, axis=0, mode="fill", fill_value=jnp.nan)


@config
class Sinusoidal(AbsolutePosition):
    """Sines in the first half of the width and cosines in the second (Vaswani et al. 2017, 3.5, reordered).

    scale multiplies them: 1 is the paper's, small values suit embeddings drawn small.
    """

    base: float = 10000.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.base <= 1:
            raise ConfigError(f"base={self.base} must be larger than 1")

    def build(self, width: int, *, rngs: nnx.Rngs) -> SinusoidalLayer:
        return SinusoidalLayer(self, width)

    def cost(self, width: int) -> Cost:
        if width % 2:
            raise ConfigError(f"sinusoidal positions need an even width, got {width}")
        return Cost()


class SinusoidalLayer(nnx.Module):
    def __init__(self, spec: Sinusoidal, width: int):
        self.spec, self.width = spec, width

    def __call__(self, positions: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        frequency = self.spec.base ** (-jnp.arange(0, self.width, 2, dtype=jnp.float32) / self.width)
        angle = positions[..., None].astype(jnp.float32) * frequency
        return self.spec.scale * jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
