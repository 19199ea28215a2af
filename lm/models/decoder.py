"""The decoder: token embeddings, a pattern of blocks, and the output head."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, config
from lm.models.execution import Execution
from lm.models.model import Cache, Model
from lm.models.trunk import Trunk, TrunkModel
from lm.nn.cost import Cost
from lm.nn.param import normal, param, zeros
from lm.shapes import Array, Float, Int


@config
class Decoder(Trunk):
    """A decoder-only language model (Radford et al. 2018).

    tied: the output head is the embedding table. head_bias: it adds a number for each token. logit_scale multiplies
    the logits, then softcap: they become softcap tanh(logit / softcap).
    """

    tied: bool = True
    head_bias: bool = False
    logit_scale: float = 1.0
    softcap: float | None = None

    def __post_init__(self) -> None:
        if self.softcap is not None and self.softcap <= 0:
            raise ConfigError(f"softcap={self.softcap} must be positive, or None for no cap")
        if self.logit_scale <= 0:
            raise ConfigError(f"logit_scale={self.logit_scale} must be positive")
        super().__post_init__()

    def build(self, *, rngs: nnx.Rngs) -> DecoderModel:
        return DecoderModel(self, rngs=rngs)

    def cost(self, length: int, context: int = 0) -> Cost:
        own = (0 if self.tied else self.rows * self.width) + (self.rows if self.head_bias else 0)
        head = Cost(params=own, embedding=own, active=own, flops=2 * length * self.width * self.vocab)
        return super().cost(length, context) + head


def as_decoder(model: Model, what: str) -> Decoder:
    """`model` if it is a decoder. Raises ConfigError that names what is only for decoders."""
    if not isinstance(model, Decoder):
        raise ConfigError(f"{what} is for a Decoder, and this model is of the type {type(model).__name__}")
    return model


class DecoderModel(TrunkModel):
    """`model(tokens [B L]) -> logits [B L V]`; `hidden` and `head` are its two halves, for a loss that joins them."""

    spec: Decoder

    def __init__(self, spec: Decoder, *, rngs: nnx.Rngs):
        super().__init__(spec, rngs=rngs)
        if not spec.tied:
            self.unembedding = param(rngs, (spec.rows, spec.width), ("vocab", "embed"), normal(self.table_std))
        self.bias = param(rngs, (spec.rows,), ("vocab",), zeros) if spec.head_bias else None

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"] | None = None,
        segments: Int[Array, "B L"] | None = None,
        cache: Cache | None = None,
        execution: Execution | None = None,
    ) -> Float[Array, "B L V"]:
        """Logits in float32."""
        return self.logits(self.hidden(tokens, positions, segments, cache, execution).h)

    def head(self) -> Float[Array, "rows D"]:
        """The output head's weights; rows beyond the vocabulary are no token."""
        return self.embedding[...] if self.spec.tied else self.unembedding[...]

    def head_bias(self) -> Float[Array, " rows"] | None:
        return None if self.bias is None else self.bias[...]

    def logits(self, h: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        logits = jnp.einsum("BLD,VD->BLV", h, self.head(), preferred_element_type=jnp.float32)
        if self.bias is not None:
            logits += self.bias[...].astype(jnp.float32)
        logits, cap = logits[..., : self.spec.vocab], self.spec.softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)

    def finish(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """What the head reads, from what the last layer gave. The logits' scale is in it: every way to them has it."""
        h = super().finish(x)
        return h if self.spec.logit_scale == 1 else h * self.spec.logit_scale
