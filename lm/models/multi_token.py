"""A decoder with modules that say the tokens after the next one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from lm import sharding
from lm.config import ConfigError, config
from lm.models.decoder import Decoder, DecoderModel
from lm.models.execution import Execution
from lm.models.model import Around, Hidden
from lm.nn.aux import Aux
from lm.nn.block import Block
from lm.nn.cost import Cost, dense
from lm.nn.linear import Linear
from lm.nn.norms import Norm, RMSNorm
from lm.shapes import Array, Float, Int
from lm.sharding import Layout


@config
class MTP(Around):
    """Multi-token prediction by modules one after another (DeepSeek-AI 2024, "DeepSeek-V3", 2.2).

    Module k reads what the one before it (or the decoder) says at token i, and the embedding of token i + k, and says
    token i + k + 1: h_k = block(W [norm(h_(k-1)), norm(embedding)]), eq. 21 and 22, then a norm of its own and the
    decoder's output layer. The decoder alone is the model that is used afterwards.
    """

    decoder: Decoder
    block: Block
    modules: int = 1
    norm: Norm = RMSNorm()

    def __post_init__(self) -> None:
        if self.modules < 1:
            raise ConfigError(f"modules={self.modules} must be at least 1; without any it is the decoder")
        if self.block.cross is not None:
            raise ConfigError("the modules' block has cross-attention, and there is nothing for it to read")
        self.cost(1)  # asks the block whether it fits this width

    @property
    def part(self) -> Decoder:
        return self.decoder

    def build(self, *, rngs: nnx.Rngs) -> MTPModel:
        return MTPModel(self, rngs=rngs)

    def cost(self, length: int) -> Cost:
        width = self.width
        norms = self.norm.cost(width) + self.norm.cost(width) + self.norm.cost(width)
        head = Cost(flops=2 * length * width * self.vocab)
        one = dense(2 * width, width, length) + norms + self.block.cost(width, length) + head
        return self.decoder.cost(length) + one.times(self.modules)

    def check_split(self, where: Layout) -> None:
        self.decoder.check_split(where)
        self.block.check_split(where)

    def check_context(self, length: int) -> None:
        self.decoder.check_context(length)


class MTPModel(nnx.Module):
    """`hidden`, `head` and `head_bias` are the decoder's; `ahead` is one module."""

    def __init__(self, spec: MTP, *, rngs: nnx.Rngs):
        self.spec = spec
        self.decoder: DecoderModel = spec.decoder.build(rngs=rngs)
        depth = spec.decoder.layers + spec.modules
        self.modules = nnx.List([Ahead(spec, depth, rngs=rngs) for _ in range(spec.modules)])

    def hidden(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"] | None = None,
        segments: Int[Array, "B L"] | None = None,
        cache: None = None,
        execution: Execution | None = None,
    ) -> Hidden:
        return self.decoder.hidden(tokens, positions, segments, cache, execution)

    def head(self) -> Float[Array, "rows D"]:
        return self.decoder.head()

    def head_bias(self) -> Float[Array, " rows"] | None:
        return self.decoder.head_bias()

    def ahead(
        self,
        k: int,
        h: Float[Array, "B L D"],
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        execution: Execution,
    ) -> Hidden:
        """Module k, from 0: h of the one before it and the tokens k + 1 places on."""
        vectors = self.decoder.vectors(tokens)
        run = execution.checkpoint(lambda module, *arrays: module(*arrays))
        y, aux = run(self.modules[k], h, vectors, positions, segments)
        return Hidden(y * self.spec.decoder.logit_scale, None, aux)


class Ahead(nnx.Module):
    """One module."""

    def __init__(self, spec: MTP, depth: int, *, rngs: nnx.Rngs):
        width = spec.width
        self.hidden_norm = spec.norm.build(width, rngs=rngs)
        self.embedding_norm = spec.norm.build(width, rngs=rngs)
        self.join = Linear({"embed_in": 2 * width}, {"embed": width}, bias=False, rngs=rngs)
        self.block = spec.block.build(width, rngs=rngs, depth=depth)
        self.norm = spec.norm.build(width, rngs=rngs)

    def __call__(
        self, h: jax.Array, vectors: jax.Array, positions: jax.Array, segments: jax.Array
    ) -> tuple[jax.Array, Aux]:
        both = jnp.concatenate([self.hidden_norm(h), self.embedding_norm(vectors)], axis=-1)
        y, _, aux = self.block(self.join(both), positions, segments)
        return self.norm(sharding.constrain(y, "batch", "length", None)), aux
