"""What every token mixer answers: attention today, state spaces and others by adding a file."""

from __future__ import annotations

import abc
from typing import Any

import jax
from flax import nnx

from lm.nn.cache import Cache
from lm.nn.cost import Cost
from lm.sharding import Layout, ShardingError


class Mixer(abc.ABC):
    """Moves information between positions. `layer(x, positions, segments, cache=None) -> (y, cache)`.

    x is [B L D]; positions restart at 0 in each document; segments number the documents of a row from 1, and 0 is
    padding. Tokens of different documents never see each other. A segment may be negative: -d marks a token of the
    prefix of document d. So the document of a token is |segment|, for every mixer; the sign says something only to a
    mask with `prefix` (`lm.nn.mask.Mask`). With a cache, x holds the tokens that follow it; what
    programs that decode ask of a cache is in `lm.nn.cache.Cache`.
    """

    @abc.abstractmethod
    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> MixerLayer:
        """The layer for a model of this width. `depth` is the number of layers, for the scale of the output."""

    @abc.abstractmethod
    def cost(self, width: int, length: int) -> Cost: ...

    def check_split(self, where: Layout) -> None:
        """Raises ShardingError where the layer can't be split so. Whatever reads its row in order needs it whole."""
        if (ways := where.ways("length")) > 1:
            name = type(self).__name__
            raise ShardingError(f"{name} reads a row in order and can't split it {ways} ways; leave sequence= out")


class MixerLayer(nnx.Module):
    def __call__(
        self, x: jax.Array, positions: jax.Array, segments: jax.Array, cache: Any = None
    ) -> tuple[jax.Array, Any]:
        raise NotImplementedError

    def pattern(self, x: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array | None:
        """How much of each token every head reads at each [B H L S], rows that add up to 1; None: it has no heads
        that do so."""
        return None

    def init_cache(self, batch: int, length: int, dtype: Any) -> Cache:
        """An empty cache for `length` tokens."""
        raise NotImplementedError
