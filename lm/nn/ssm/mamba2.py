"""Mamba-2: a state space whose heads decay as a whole, so that a chunk of tokens is a few matrix products."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm import sharding
from lm.config import ConfigError, config
from lm.nn.cost import Cost, dense, weights
from lm.nn.feedforward import to_residual
from lm.nn.kernels.spread import spread
from lm.nn.linear import Linear
from lm.nn.mixer import Mixer
from lm.nn.param import ones, param
from lm.nn.ssm import conv, decayed
from lm.nn.ssm.cache import Past, RecurrentLayer, Tokens, last_document
from lm.nn.ssm.check import at_least_one, divides
from lm.nn.ssm.gated_norm import GatedNorm, GateThenNorm
from lm.nn.ssm.initial import a_log_of_heads, dt_bias
from lm.shapes import Array, Float, Int


@config
class Mamba2(Mixer):
    """Mamba-2 (Dao and Gu 2024, figure 6; the SSD form of section 6): out(norm(scan(x) + D x, gate)).

    `heads` heads of `head_width` channels share the B and C of `groups` groups, each a state of `state` numbers a
    channel. conv: taps of the causal convolution over x, B and C. norm: with the gate, over the channels of each
    group. dt_least, dt_most: limits of the step sizes. conv_bias: after the convolution; bias: on the projections from
    and to the model's width. chunk: tokens that are done at once; also between two states that the backward pass keeps.

    Its FLOPs count the products inside chunks as they are done, the masked half too.
    """

    heads: int
    head_width: int = 64
    groups: int = 1
    state: int = 128
    conv: int = 4
    norm: GatedNorm = GateThenNorm()
    dt_least: float = 0.0
    dt_most: float | None = None
    conv_bias: bool = True
    bias: bool = False
    chunk: int = 128

    def __post_init__(self) -> None:
        at_least_one(self, "head_width", "state", "conv", "chunk")
        divides(self, "groups", "heads")
        if not 0 <= self.dt_least < (float("inf") if self.dt_most is None else self.dt_most):
            raise ConfigError(f"dt_least={self.dt_least} must be at least 0 and below dt_most={self.dt_most}")

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> Mamba2Layer:
        return Mamba2Layer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        inner, shared = self.heads * self.head_width, self.groups * self.state
        total = sum((dense(width, n, length, self.bias) for n in (inner, inner, shared, shared, self.heads)), Cost())
        total += conv.cost(self.conv, inner + 2 * shared, self.conv_bias)
        total += decayed.cost(length, self.chunk, self.groups, self.heads, self.state, self.head_width)
        return total + weights(3 * self.heads + inner) + dense(inner, width, length, self.bias)


class Mamba2Layer(RecurrentLayer):
    def __init__(self, spec: Mamba2, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        heads, shared = {"heads": spec.heads, "head_dim": spec.head_width}, {"kv_heads": spec.groups}
        states, a_head = shared | {"head_dim": spec.state}, {"heads": spec.heads}

        def projection(outputs: dict[str, int]) -> Linear:
            return Linear({"embed": width}, outputs, bias=spec.bias, rngs=rngs)

        def convolution(channels: dict[str, int]) -> conv.CausalConv:
            return conv.CausalConv(spec.conv, channels, bias=spec.conv_bias, rngs=rngs)

        self.gate, self.x, self.dt = projection(heads), projection(heads), projection(a_head)
        self.B, self.C = projection(states), projection(states)
        self.x_conv, self.B_conv, self.C_conv = convolution(heads), convolution(states), convolution(states)
        self.dt_bias = param(rngs, (spec.heads,), ("heads",), dt_bias, precise=True)
        self.A_log = param(rngs, (spec.heads,), ("heads",), a_log_of_heads, precise=True)
        self.D = param(rngs, (spec.heads,), ("heads",), ones)
        of_group = spec.heads // spec.groups * spec.head_width
        self.norm = spec.norm.build(shared | {"head_dim": of_group}, rngs=rngs)
        self.out = Linear(heads, {"embed": width}, bias=spec.bias, scale=to_residual(depth), rngs=rngs)

    def mix(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], tokens: Tokens, past: Past
    ) -> tuple[Float[Array, "B L D"], Past]:
        tails = {}
        u, tails["x"] = self.x_conv(sharding.constrain(self.x(x), "batch", "length", "heads", None), tokens, past, "x")
        b, tails["B"] = self.B_conv(self.B(x), tokens, past, "B")
        c, tails["C"] = self.C_conv(self.C(x), tokens, past, "C")
        dt = self._steps(x) * tokens.real[..., None]
        log_decay = -jnp.exp(self.A_log[...].astype(jnp.float32)) * dt
        v = (u * dt[..., None]).astype(u.dtype)
        y, state = decayed.decayed(c, b, v, log_decay, tokens.resets, past.state, chunk=self.spec.chunk)
        y += u * self.D[...][:, None].astype(u.dtype)
        y, z = (a.reshape(*a.shape[:2], *self.norm.scale.shape) for a in (y, self.gate(x)))
        y = self.norm(y, z).reshape(u.shape)
        return self.out(y), Past(tails, state, last_document(tokens, past))

    def _steps(self, x: Float[Array, "B L D"]) -> Float[Array, "B L H"]:
        dt = self.dt(x).astype(jnp.float32)
        dt = jax.nn.softplus(dt + spread(self.dt_bias[...].astype(jnp.float32), dt))
        return jnp.clip(dt, self.spec.dt_least, self.spec.dt_most)

    def init_cache(self, batch: int, length: int, dtype: Any) -> Past:
        spec = self.spec
        tails = {name: getattr(self, f"{name}_conv").empty(batch, dtype) for name in ("x", "B", "C")}
        state = jnp.zeros((batch, spec.heads, spec.state, spec.head_width), jnp.float32)
        return Past(tails, state, jnp.zeros(batch, jnp.int32))
