"""Gated delta nets: a memory of keys and values that forgets, and replaces what a key gave by what it should give."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm import sharding
from lm.config import config
from lm.nn.cost import Cost, dense, weights
from lm.nn.feedforward import to_residual
from lm.nn.kernels.recompute import recomputed
from lm.nn.kernels.spread import spread
from lm.nn.linear import Linear
from lm.nn.mixer import Mixer
from lm.nn.param import param
from lm.nn.ssm import conv, decayed
from lm.nn.ssm.cache import Past, RecurrentLayer, Tokens, last_document
from lm.nn.ssm.check import at_least_one, divides
from lm.nn.ssm.gated_norm import GatedNorm, NormThenGate
from lm.nn.ssm.initial import a_log_of_heads, dt_bias
from lm.shapes import Array, Float, Int

EPSILON = 1e-6  # under the root of a key's length, as in the authors' code


@config
class GatedDeltaNet(Mixer):
    """The gated delta rule (Yang et al. 2024, "Gated Delta Networks", equation 10 and figure 1; Qwen3-Next).

    `heads` values of `value_width` share the queries and keys, of `key_width` and length 1, of `key_heads` heads.
    conv: taps of the causal convolution over queries, keys and values. norm: with the gate, over each head. conv_bias:
    after the convolution. chunk: tokens that are done at once; also between two states that the backward pass keeps.

    Its FLOPs count the products inside chunks as they are done, the masked half too.
    """

    heads: int
    key_heads: int
    key_width: int = 128
    value_width: int = 128
    conv: int = 4
    norm: GatedNorm = NormThenGate()
    conv_bias: bool = False
    chunk: int = 64

    def __post_init__(self) -> None:
        at_least_one(self, "key_width", "value_width", "conv", "chunk")
        divides(self, "key_heads", "heads")

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> GatedDeltaLayer:
        return GatedDeltaLayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        keys, values = self.key_heads * self.key_width, self.heads * self.value_width
        outputs = (keys, keys, values, values, self.heads, self.heads)
        total = sum((dense(width, n, length) for n in outputs), dense(values, width, length))
        total += conv.cost(self.conv, 2 * keys + values, self.conv_bias) + weights(2 * self.heads + self.value_width)
        sizes = (length, self.chunk, self.key_heads, self.heads, self.key_width, self.value_width)
        return total + decayed.cost(*sizes, delta=True)


class GatedDeltaLayer(RecurrentLayer):
    def __init__(self, spec: GatedDeltaNet, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        keys = {"kv_heads": spec.key_heads, "head_dim": spec.key_width}
        values = {"heads": spec.heads, "head_dim": spec.value_width}
        a_head = {"heads": spec.heads}

        def projection(outputs: dict[str, int]) -> Linear:
            return Linear({"embed": width}, outputs, rngs=rngs)

        def convolution(channels: dict[str, int]) -> conv.CausalConv:
            return conv.CausalConv(spec.conv, channels, bias=spec.conv_bias, rngs=rngs)

        self.query, self.key, self.value = projection(keys), projection(keys), projection(values)
        self.query_conv, self.key_conv, self.value_conv = convolution(keys), convolution(keys), convolution(values)
        self.gate, self.beta, self.dt = projection(values), projection(a_head), projection(a_head)
        self.dt_bias = param(rngs, (spec.heads,), ("heads",), dt_bias, precise=True)
        self.A_log = param(rngs, (spec.heads,), ("heads",), a_log_of_heads, precise=True)
        self.norm = spec.norm.build({"head_dim": spec.value_width}, rngs=rngs)
        self.out = Linear(values, {"embed": width}, scale=to_residual(depth), rngs=rngs)

    def mix(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], tokens: Tokens, past: Past
    ) -> tuple[Float[Array, "B L D"], Past]:
        tails = {}
        q, tails["query"] = self.query_conv(self.query(x), tokens, past, "query")
        k, tails["key"] = self.key_conv(self.key(x), tokens, past, "key")
        v = sharding.constrain(self.value(x), "batch", "length", "heads", None)
        v, tails["value"] = self.value_conv(v, tokens, past, "value")
        q = recomputed(_unit, q) / math.sqrt(self.spec.key_width)
        k, real = recomputed(_unit, k), tokens.real[..., None]
        beta = jax.nn.sigmoid(self.beta(x).astype(jnp.float32)) * real
        dt = self.dt(x).astype(jnp.float32)
        dt = jax.nn.softplus(dt + spread(self.dt_bias[...].astype(jnp.float32), dt)) * real
        log_decay = -jnp.exp(self.A_log[...].astype(jnp.float32)) * dt
        y, state = decayed.decayed_delta(q, k, v, beta, log_decay, tokens.resets, past.state, chunk=self.spec.chunk)
        return self.out(self.norm(y, self.gate(x))), Past(tails, state, last_document(tokens, past))

    def init_cache(self, batch: int, length: int, dtype: Any) -> Past:
        spec = self.spec
        tails = {name: getattr(self, f"{name}_conv").empty(batch, dtype) for name in ("query", "key", "value")}
        state = jnp.zeros((batch, spec.heads, spec.key_width, spec.value_width), jnp.float32)
        return Past(tails, state, jnp.zeros(batch, jnp.int32))


def _unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1."""
    x32 = x.astype(jnp.float32)
    return (x32 * jax.lax.rsqrt(jnp.square(x32).sum(axis=-1, keepdims=True) + EPSILON)).astype(x.dtype)
