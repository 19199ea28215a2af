"""The encoder: every token sees the whole document, and what comes out is a vector for each."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, config
from lm.models.execution import Execution
from lm.models.trunk import Trunk, TrunkModel
from lm.nn.cost import Cost, dense, weights
from lm.nn.linear import Linear
from lm.nn.param import normal, param
from lm.shapes import Array, Float, Int


@config
class Encoder(Trunk):
    """A bidirectional encoder (Devlin et al. 2018). Its blocks' masks are Mask(causal=False); `Headed` gives it a head.

    types: kinds of tokens that have a vector of their own (BERT: first and second sentence); 0: none. embed_width: of
    all tables, which a linear layer then takes to `width` (ALBERT's factorisation; ELECTRA); None: `width`.
    """

    types: int = 0
    embed_width: int | None = None

    def __post_init__(self) -> None:
        if self.types < 0:
            raise ConfigError(f"types={self.types} must not be negative")
        if self.embed_width is not None and self.embed_width < 1:
            raise ConfigError(f"embed_width={self.embed_width} must be at least 1, or None for the width")
        super().__post_init__()

    @property
    def table_width(self) -> int:
        return self.embed_width or self.width

    def build(self, *, rngs: nnx.Rngs) -> EncoderModel:
        return EncoderModel(self, rngs=rngs)

    def cost(self, length: int, context: int = 0) -> Cost:
        types = weights(self.types * self.table_width)
        total = super().cost(length, context) + types + Cost(embedding=types.params)
        return total if self.embed_width is None else total + dense(self.embed_width, self.width, length, bias=True)


class EncoderModel(TrunkModel):
    """`model(tokens [B L]) -> h [B L D]` in float32."""

    spec: Encoder

    def __init__(self, spec: Encoder, *, rngs: nnx.Rngs):
        super().__init__(spec, rngs=rngs)
        shape = spec.types, spec.table_width
        self.types = param(rngs, shape, ("types", "embed"), normal(self.table_std)) if spec.types else None
        widen = {"embed_in": spec.table_width}, {"embed": spec.width}
        self.project = None if spec.embed_width is None else Linear(*widen, bias=True, rngs=rngs)

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"] | None = None,
        segments: Int[Array, "B L"] | None = None,
        execution: Execution | None = None,
        *,
        types: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B L D"]:
        return self.hidden(tokens, positions, segments, None, execution, types=types).h.astype(jnp.float32)

    def embed(
        self, tokens: Int[Array, "B L"], positions: Int[Array, "B L"], types: Int[Array, "B L"] | None = None
    ) -> Float[Array, "B L D"]:
        """types None: all of type 0."""
        if self.types is None and types is not None:
            raise ConfigError("this encoder has types=0: it knows no token types")
        x = self.vectors(tokens)
        if self.types is not None:
            x = x + jnp.take(self.types[...], jnp.zeros_like(tokens) if types is None else types, axis=0)
        x = self._embedded(x, positions)
        return x if self.project is None else self.project(x)
