"""The decoder: token embeddings, a pattern of blocks, and the output head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lm import sharding
from lm.config import ConfigError, config
from lm.models.execution import Execution
from lm.nn.aux import Aux, joined
from lm.nn.block import Block, BlockLayer
from lm.nn.cache import Cache as LayerCache
from lm.nn.cost import Cost
from lm.nn.mask import positions_of
from lm.nn.norms import Norm, RMSNorm
from lm.nn.param import layer, normal, param, stacked
from lm.nn.positions import AbsolutePosition
from lm.shapes import Array, Float, Int

Cache = tuple[LayerCache, ...]


class Hidden(NamedTuple):
    """What the head reads: h [B L D] after the final norm, the cache if one was given, what the layers say besides."""

    h: jax.Array
    cache: Cache | None
    aux: Aux


@config
class Decoder:
    """A decoder-only language model (Radford et al. 2018).

    block: one block for all layers, or a pattern that repeats: layer i is block[i mod len]. norm: the final one.
    tied: the output head is the embedding table. embed_scale multiplies token embeddings; None stands for
    sqrt(width) (Vaswani et al. 2017, 3.4; Gemma). embed_std: of the tables' initial values; None: width^-0.5.
    logit_scale multiplies the logits, then softcap: they become softcap tanh(logit / softcap).
    vocab_multiple: the tables get rows up to a multiple of this (128 makes matrix products faster on accelerators, and
    lets any mesh split them). They are parameters of the built model, but no token: no logit, no gradient, no FLOPs.
    """

    vocab: int
    width: int
    layers: int
    block: Block | tuple[Block, ...]
    position: AbsolutePosition | None = None
    norm: Norm | None = RMSNorm()
    tied: bool = True
    embed_scale: float | None = 1.0
    embed_std: float | None = None
    logit_scale: float = 1.0
    softcap: float | None = None
    vocab_multiple: int = 1

    def __post_init__(self) -> None:
        for name in ("vocab", "width", "layers", "vocab_multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.pattern:
            raise ConfigError("block=() is an empty pattern; give at least one block")
        if len(self.pattern) > self.layers:
            raise ConfigError(f"a pattern of {len(self.pattern)} blocks doesn't fit layers={self.layers}")
        if self.softcap is not None and self.softcap <= 0:
            raise ConfigError(f"softcap={self.softcap} must be positive, or None for no cap")
        if self.embed_std is not None and self.embed_std <= 0:
            raise ConfigError(f"embed_std={self.embed_std} must be positive, or None for width^-0.5")
        if self.logit_scale <= 0:
            raise ConfigError(f"logit_scale={self.logit_scale} must be positive")
        self.cost(1)  # asks every component whether it fits this width

    @property
    def rows(self) -> int:
        """Rows of the token tables: `vocab`, rounded up."""
        return math.ceil(self.vocab / self.vocab_multiple) * self.vocab_multiple

    @property
    def pattern(self) -> tuple[Block, ...]:
        return self.block if isinstance(self.block, tuple) else (self.block,)

    def repeats(self, index: int) -> int:
        """How many layers are made from entry `index` of the pattern."""
        return math.ceil((self.layers - index) / len(self.pattern))

    def check_context(self, length: int) -> None:
        """Raises ConfigError if the model has no positions for `length` tokens."""
        limit = None if self.position is None else self.position.limit()
        if limit is not None and length > limit:
            raise ConfigError(f"this model has {limit} learned positions, {length} were asked for")

    def build(self, *, rngs: nnx.Rngs) -> DecoderModel:
        return DecoderModel(self, rngs=rngs)

    def cost(self, length: int) -> Cost:
        """The cost of one document of `length` tokens."""
        tables = self.rows * self.width * (1 if self.tied else 2)
        table = Cost(params=tables, embedding=tables, active=tables, flops=2 * length * self.width * self.vocab)
        if self.position is not None:
            positions = self.position.cost(self.width)
            table += positions + Cost(embedding=positions.params)
        for index, block in enumerate(self.pattern):
            table += sum([block.cost(self.width, length)] * self.repeats(index), Cost())
        return table if self.norm is None else table + self.norm.cost(self.width)


class DecoderModel(nnx.Module):
    """`model(tokens [B L]) -> logits [B L V]`; `hidden` and `head` are its two halves, for a loss that joins them."""

    def __init__(self, spec: Decoder, *, rngs: nnx.Rngs):
        self.spec = spec
        width, depth = spec.width, spec.layers
        table = normal(1 / math.sqrt(width) if spec.embed_std is None else spec.embed_std)
        self.embedding = param(rngs, (spec.rows, width), ("vocab", "embed"), table)
        self.position = None if spec.position is None else spec.position.build(width, rngs=rngs)
        self.blocks = nnx.Dict(
            {
                str(i): stacked(lambda r, b=block: b.build(width, rngs=r, depth=depth), spec.repeats(i), rngs)
                for i, block in enumerate(spec.pattern)
            }
        )
        self.norm = None if spec.norm is None else spec.norm.build(width, rngs=rngs)
        if not spec.tied:
            self.unembedding = param(rngs, (spec.rows, width), ("vocab", "embed"), table)

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"] | None = None,
        segments: Int[Array, "B L"] | None = None,
        cache: Cache | None = None,
        execution: Execution | None = None,
    ) -> Float[Array, "B L V"]:
        """Logits in float32."""
        return self.logits(self.hidden(tokens, positions, segments, cache, execution or Execution()).h)

    def head(self) -> Float[Array, "rows D"]:
        """The output head's weights; rows beyond the vocabulary are no token."""
        return self.embedding[...] if self.spec.tied else self.unembedding[...]

    def logits(self, h: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        logits = jnp.einsum("BLD,VD->BLV", h, self.head(), preferred_element_type=jnp.float32)[..., : self.spec.vocab]
        cap = self.spec.softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)

    def hidden(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"] | None,
        segments: Int[Array, "B L"] | None,
        cache: Cache | None,
        execution: Execution,
        layers: Sequence[BlockLayer] | None = None,
    ) -> Hidden:
        """Everything but the output head. Without segments each row is one document.

        layers: what `layers()` gave, for a loop of cached calls: taking them from their stacks copies all weights.
        """
        segments = jnp.ones_like(tokens) if segments is None else segments
        positions = positions_of(segments) if positions is None else positions
        x = self.embed(tokens, positions)
        if cache is None:
            x, aux = self._train_layers(x, positions, segments, execution)
        else:
            x, cache, aux = self._cached_layers(x, positions, segments, cache, layers or self.layers())
        return Hidden(self.finish(x), cache, aux)

    def embed(self, tokens: Int[Array, "B L"], positions: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """What the first layer reads."""
        scale = math.sqrt(self.spec.width) if self.spec.embed_scale is None else self.spec.embed_scale
        x = jnp.take(self.embedding[...], tokens, axis=0) * scale
        if self.position is not None:
            x = x + self.position(positions).astype(x.dtype)
        return sharding.constrain(x, "batch", "length", None)

    def finish(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """What the head reads, from what the last layer gave. The logits' scale is in it: every way to them has it."""
        h = x if self.norm is None else self.norm(x)
        return h if self.spec.logit_scale == 1 else h * self.spec.logit_scale

    def _train_layers(
        self, x: jax.Array, positions: jax.Array, segments: jax.Array, execution: Execution
    ) -> tuple[jax.Array, Aux]:
        """Loops over whole patterns, then does what is left of the last one."""
        pattern = [self.blocks[str(i)] for i in range(len(self.spec.pattern))]
        whole = self.spec.layers // len(pattern)

        @execution.checkpoint
        def one(block: BlockLayer, x: jax.Array) -> tuple[jax.Array, Aux]:
            y, _, aux = block(x, positions, segments)
            return sharding.constrain(y, "batch", "length", None), aux

        def body(x: jax.Array, blocks: list[BlockLayer]) -> tuple[jax.Array, list[Aux]]:
            found = []
            for block in blocks:
                x, aux = one(block, x)
                found.append(aux)
            return x, found

        repeated = [jax.tree.map(lambda p: p[:whole], block) for block in pattern]
        x, found = jax.lax.scan(body, x, repeated, unroll=whole if execution.unrolls(self.spec.layers) else 1)
        for block in pattern[: self.spec.layers % len(pattern)]:
            x, aux = one(layer(block, whole), x)
            found.append(aux)
        return x, joined(found)

    def _cached_layers(
        self, x: jax.Array, positions: jax.Array, segments: jax.Array, cache: Cache, layers: Sequence[BlockLayer]
    ) -> tuple[jax.Array, Cache, Aux]:
        """One layer after another, so that each updates its own cache in place."""
        after, found = [], []
        for one, old in zip(layers, cache, strict=True):
            x, new, aux = one(x, positions, segments, old)
            after.append(new)
            found.append(aux)
        return x, tuple(after), joined(found)

    def layers(self) -> list[BlockLayer]:
        """Each layer in order, out of its stack."""
        return [layer(block, index) for block, index in self._layers()]

    def _layers(self) -> list[tuple[BlockLayer, int]]:
        """Each layer in order, as its stack and its place there."""
        count = len(self.spec.pattern)
        return [(self.blocks[str(i % count)], i // count) for i in range(self.spec.layers)]

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Cache:
        """An empty cache for `length` tokens in each of `batch` rows. It may be longer than the model's context."""
        return tuple(block.mixer.init_cache(batch, length, dtype) for block, _ in self._layers())
