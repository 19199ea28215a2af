"""Retention: linear attention in which each head forgets at a fixed rate of its own."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm import sharding
from lm.config import ConfigError, config
from lm.nn.cost import Cost, dense, weights
from lm.nn.feedforward import to_residual
from lm.nn.linear import Linear
from lm.nn.mixer import Mixer
from lm.nn.relative import RelativeLayer
from lm.nn.rope import RoPE
from lm.nn.ssm import decayed
from lm.nn.ssm.cache import Past, RecurrentLayer, Tokens, last_document
from lm.nn.ssm.check import at_least_one
from lm.nn.ssm.gated_norm import GatedNorm, NormThenGate
from lm.shapes import Array, Float, Int


@config
class Retention(Mixer):
    """Multi-scale retention (Sun et al. 2023, equations 5 to 8): a token is seen at a distance of n with gamma^n.

    key_width None: width / heads; value_width None: twice that, as in the paper. span: 1 / (1 - gamma) of the first
    head in tokens, twice as much for each next one (the paper's gamma = 1 - 2^(-5 - h) is span 32); None: nothing is
    forgotten, which is linear attention. position: turns queries and keys. norm: with the gate, over each head. chunk:
    tokens that are done at once; also between two states that the backward pass keeps.

    Its FLOPs count the products inside chunks as they are done, the masked half too.
    """

    heads: int
    key_width: int | None = None
    value_width: int | None = None
    span: float | None = 32.0
    position: RoPE | None = RoPE()
    norm: GatedNorm = NormThenGate()
    chunk: int = 128

    def __post_init__(self) -> None:
        at_least_one(self, "heads", "chunk", *(n for n in ("key_width", "value_width") if getattr(self, n) is not None))
        if self.span is not None and self.span <= 1:
            raise ConfigError(f"span={self.span} must be above 1 token, or None to forget nothing")

    def widths(self, width: int) -> tuple[int, int]:
        """Of keys and of values."""
        if self.key_width is None and width % self.heads:
            raise ConfigError(f"heads={self.heads} must divide width={width}, or give key_width")
        key = width // self.heads if self.key_width is None else self.key_width
        return key, 2 * key if self.value_width is None else self.value_width

    def log_decay(self) -> np.ndarray:
        """log gamma of each head [H]."""
        if self.span is None:
            return np.zeros(self.heads, np.float32)
        return np.log1p(-1 / (self.span * 2.0 ** np.arange(self.heads))).astype(np.float32)

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> RetentionLayer:
        return RetentionLayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        key, value = self.widths(width)
        total = sum((dense(width, self.heads * n, length) for n in (key, key, value, value)), weights(value))
        total += decayed.cost(length, self.chunk, self.heads, self.heads, key, value)
        if self.position is not None:
            total += self.position.cost(self.heads, key)
        return total + dense(self.heads * value, width, length)


class RetentionLayer(RecurrentLayer):
    def __init__(self, spec: Retention, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        self.widths = key, value = spec.widths(width)
        keys, values = ({"heads": spec.heads, "head_dim": n} for n in (key, value))
        self.query = Linear({"embed": width}, keys, rngs=rngs)
        self.key = Linear({"embed": width}, keys, rngs=rngs)
        self.value = Linear({"embed": width}, values, rngs=rngs)
        self.gate = Linear({"embed": width}, values, rngs=rngs)
        self.position = RelativeLayer() if spec.position is None else spec.position.build(spec.heads, key, rngs=rngs)
        self.norm = spec.norm.build({"head_dim": value}, rngs=rngs)
        self.out = Linear(values, {"embed": width}, scale=to_residual(depth), rngs=rngs)

    def mix(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], tokens: Tokens, past: Past
    ) -> tuple[Float[Array, "B L D"], Past]:
        q = self.position.rotate(self.query(x), positions) / math.sqrt(self.widths[0])
        real = tokens.real[..., None]
        k = self.position.rotate(self.key(x), positions) * real[..., None]
        v = sharding.constrain(self.value(x), "batch", "length", "heads", None)
        log_decay = jnp.where(real, self.spec.log_decay(), 0.0)
        y, state = decayed.decayed(q, k, v, log_decay, tokens.resets, past.state, chunk=self.spec.chunk)
        return self.out(self.norm(y, self.gate(x))), Past({}, state, last_document(tokens, past))

    def init_cache(self, batch: int, length: int, dtype: Any) -> Past:
        state = jnp.zeros((batch, self.spec.heads, *self.widths), jnp.float32)
        return Past({}, state, jnp.zeros(batch, jnp.int32))
