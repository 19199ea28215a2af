"""What decoders and encoders have in common: embeddings, a stack of blocks, a final norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from lm import sharding
from lm.config import ConfigError, config
from lm.models import stack
from lm.models.execution import Execution
from lm.models.model import Cache, Hidden, Model
from lm.nn.block import BlockLayer
from lm.nn.cost import Cost
from lm.nn.cross import Context, CrossLayer
from lm.nn.kernels.attention_decode import Slots
from lm.nn.mask import positions_of
from lm.nn.norms import Norm, RMSNorm
from lm.nn.param import normal, param
from lm.nn.positions import AbsolutePosition
from lm.shapes import Array, Float, Int
from lm.sharding import Layout


@config
class Trunk(stack.Layers, Model):
    """Tokens to hidden states.

    vocab, width: of the token table. position: added to the embeddings. embed_norm: of their sum, before the first
    layer. norm: after the last one. embed_scale multiplies token embeddings; None stands for sqrt(width) (Vaswani et
    al. 2017, 3.4; Gemma). embed_std: of the tables' initial values; None: width^-0.5. vocab_multiple: the tables get
    rows up to a multiple of this (128 makes matrix products faster on accelerators, and lets any mesh split them).
    They are parameters of the built model, but no token: no logit, no gradient, no FLOPs.
    """

    vocab: int
    width: int
    position: AbsolutePosition | None = None
    embed_norm: Norm | None = None
    norm: Norm | None = RMSNorm()
    embed_scale: float | None = 1.0
    embed_std: float | None = None
    vocab_multiple: int = 1

    def __post_init__(self) -> None:
        for name in ("vocab", "width", "vocab_multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        self.check_layers()
        if self.embed_std is not None and self.embed_std <= 0:
            raise ConfigError(f"embed_std={self.embed_std} must be positive, or None for width^-0.5")
        self.cost(1)  # asks every component whether it fits this width

    @property
    def rows(self) -> int:
        """Rows of the token tables: `vocab`, rounded up."""
        return math.ceil(self.vocab / self.vocab_multiple) * self.vocab_multiple

    @property
    def table_width(self) -> int:
        """Of the embeddings."""
        return self.width

    def check_context(self, length: int) -> None:
        limit = None if self.position is None else self.position.limit()
        if limit is not None and length > limit:
            raise ConfigError(f"this model has {limit} learned positions, {length} were asked for")

    def check_split(self, where: Layout) -> None:
        self.check_stages(where)
        for block, _ in self.stacks().values():
            block.check_split(where)

    def cost(self, length: int, context: int = 0) -> Cost:
        """The cost of one document of `length` tokens, whose cross-attention reads a context of so many."""
        table = self.rows * self.table_width
        total = Cost(params=table, embedding=table, active=table)
        if self.position is not None:
            positions = self.position.cost(self.table_width)
            total += positions + Cost(embedding=positions.params)
        if self.embed_norm is not None:
            total += self.embed_norm.cost(self.table_width)
        total += self.layers_cost(self.width, length, context)
        return total if self.norm is None else total + self.norm.cost(self.width)


class TrunkModel(nnx.Module):
    """Holds a trunk's parameters; `hidden` is its function."""

    def __init__(self, spec: Trunk, *, rngs: nnx.Rngs):
        self.spec = spec
        width, self.table_std = spec.table_width, spec.embed_std or 1 / math.sqrt(spec.width)
        self.embedding = param(rngs, (spec.rows, width), ("vocab", "embed"), normal(self.table_std))
        self.position = None if spec.position is None else spec.position.build(width, rngs=rngs)
        self.embed_norm = None if spec.embed_norm is None else spec.embed_norm.build(width, rngs=rngs)
        self.blocks = stack.build(spec, spec.width, rngs)
        self.norm = None if spec.norm is None else spec.norm.build(spec.width, rngs=rngs)

    def hidden(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"] | None = None,
        segments: Int[Array, "B L"] | None = None,
        cache: Cache | None = None,
        execution: Execution | None = None,
        *,
        layers: Sequence[BlockLayer] | None = None,
        context: stack.Reads = None,
        types: Int[Array, "B L"] | None = None,
    ) -> Hidden:
        """Everything but the output layer. Without segments each row is one document.

        layers: what `layers()` gave, for a loop of cached calls: taking them from their stacks copies all weights.
        context: what cross-attention reads; `contexts` makes it ready for such a loop. types: of the tokens, in
        encoders that know some.
        """
        segments = jnp.ones_like(tokens) if segments is None else segments
        positions = positions_of(segments) if positions is None else positions
        x = self.embed(tokens, positions, types)
        if cache is None:
            assert context is None or isinstance(context, Context)
            ran = stack.run(self.spec, self.blocks, x, positions, segments, execution or Execution(), context)
            x, aux = ran
        else:
            layers = layers or self.layers()
            x, cache, aux = stack.run_cached(layers, x, positions, segments, cache, context)
        return Hidden(self.finish(x), cache, aux)

    def embed(
        self, tokens: Int[Array, "B L"], positions: Int[Array, "B L"], types: Int[Array, "B L"] | None = None
    ) -> Float[Array, "B L D"]:
        """What the first layer reads."""
        if types is not None:
            raise ConfigError("this model knows no token types; leave types=None")
        return self._embedded(self.vectors(tokens), positions)

    def vectors(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """The tokens' own vectors."""
        scale = math.sqrt(self.spec.width) if self.spec.embed_scale is None else self.spec.embed_scale
        table_VD, where = self.embedding[...], sharding.in_scope()
        if where is not None and not where.exchanges_columns:
            # each device looks in its own rows, and the sum over them is sent (Shoeybi et al. 2019); left to itself
            # the compiler sends all rows of the table, and then what was found as well
            table_VD = sharding.constrain(table_VD, "vocab", None)
        return jnp.take(table_VD, tokens, axis=0) * scale

    def _embedded(self, x: Float[Array, "B L D"], positions: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """The tables' vectors with their positions."""
        if self.position is not None:
            x = x + self.position(positions).astype(x.dtype)
        x = x if self.embed_norm is None else self.embed_norm(x)
        return sharding.constrain(x, "batch", "length", None)

    def finish(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """From what the last layer gave."""
        return x if self.norm is None else self.norm(x)

    def layers(self) -> list[BlockLayer]:
        """Each layer in order, out of its stack."""
        return stack.layers(self.spec, self.blocks)

    def contexts(self, context: Context, dtype: Any) -> list[Slots | None]:
        """What each layer reads of an encoder's output, made once for all tokens that will read it."""
        crosses = [one.cross for one in self.layers()]
        return [one.slots(context, dtype) if isinstance(one, CrossLayer) else None for one in crosses]

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Cache:
        """An empty cache for `length` tokens in each of `batch` rows. It may be longer than the model's context."""
        return tuple(self.blocks[name].mixer.init_cache(batch, length, dtype) for name, _ in self.spec.places())
