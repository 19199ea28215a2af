"""A trunk with an output layer on it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, config
from lm.models.decoder import Decoder
from lm.models.encoder import Encoder
from lm.models.execution import Execution
from lm.models.heads import Head
from lm.models.model import Around, Hidden
from lm.nn.cost import Cost
from lm.shapes import Array, Int


@config
class Headed(Around):
    """`head` on `body`. A decoder's own output layer isn't used; leave it tied, so that it has no weights."""

    body: Encoder | Decoder
    head: Head

    def __post_init__(self) -> None:
        if not isinstance(self.body, Decoder):
            return
        if not self.body.tied or self.body.head_bias:
            raise ConfigError("body: this decoder's own head would be of no use; give it tied=True, head_bias=False")
        if self.body.logit_scale != 1 or self.body.softcap is not None:
            raise ConfigError("body: logit_scale and softcap are of the decoder's own head; give it 1.0 and None")

    @property
    def part(self) -> Encoder | Decoder:
        return self.body

    @property
    def classes(self) -> int:
        return self.head.classes(self.body)

    def build(self, *, rngs: nnx.Rngs) -> HeadedModel:
        return HeadedModel(self, rngs=rngs)

    def cost(self, length: int) -> Cost:
        body = self.body.cost(length)
        if isinstance(self.body, Decoder):
            body += Cost(flops=-2 * length * self.width * self.vocab)
        return body + self.head.cost(self.body, length)

    def check_context(self, length: int) -> None:
        self.body.check_context(length)


class HeadedModel(nnx.Module):
    """`model(tokens [B L])` gives float32 numbers: [B L C] for a head on every token, [B C] for one on rows."""

    def __init__(self, spec: Headed, *, rngs: nnx.Rngs):
        self.spec = spec
        self.body = spec.body.build(rngs=rngs)
        self.top = spec.head.build(spec.body, rngs=rngs)

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"] | None = None,
        segments: Int[Array, "B L"] | None = None,
        execution: Execution | None = None,
        *,
        types: Int[Array, "B L"] | None = None,
    ) -> jax.Array:
        return self.logits(self.hidden(tokens, positions, segments, None, execution, types=types).h)

    def hidden(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"] | None = None,
        segments: Int[Array, "B L"] | None = None,
        cache: Any = None,
        execution: Execution | None = None,
        *,
        types: Int[Array, "B L"] | None = None,
    ) -> Hidden:
        """The features that the head's last map reads."""
        segments = jnp.ones_like(tokens) if segments is None else segments
        found = self.body.hidden(tokens, positions, segments, cache, execution, types=types)
        return found._replace(h=self.top.features(found.h, segments))

    def head(self) -> jax.Array:
        """The weights of the head's last map [C D]: its own, or the table of the tokens."""
        return self.body.embedding[...] if self.top.weight is None else self.top.weight[...]

    def head_bias(self) -> jax.Array | None:
        return None if self.top.bias is None else self.top.bias[...]

    def logits(self, h: jax.Array) -> jax.Array:
        """Features [... D] to numbers for each class [... C]; features themselves where the head has no map."""
        if not self.top.maps:
            return h.astype(jnp.float32)
        y = jnp.einsum("...D,CD->...C", h, self.head(), preferred_element_type=jnp.float32)
        bias = self.head_bias()
        return (y if bias is None else y + bias.astype(jnp.float32))[..., : self.spec.classes]
