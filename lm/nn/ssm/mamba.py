"""Mamba: a selective state space in every channel."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm import sharding
from lm.config import ConfigError, config
from lm.nn.cost import Cost, dense, weights
from lm.nn.feedforward import to_residual
from lm.nn.kernels.recompute import recomputed
from lm.nn.kernels.spread import spread
from lm.nn.linear import Linear
from lm.nn.mixer import Mixer
from lm.nn.norms import Norm
from lm.nn.param import ones, param
from lm.nn.ssm import conv
from lm.nn.ssm.cache import Past, RecurrentLayer, Tokens, last_document
from lm.nn.ssm.check import at_least_one
from lm.nn.ssm.initial import a_log_of_states, dt_bias
from lm.nn.ssm.selective import selective_scan
from lm.shapes import Array, Float, Int


@config
class Mamba(Mixer):
    """Mamba (Gu and Dao 2023, figure 3, algorithm 2): out((scan(u) + D u) silu(gate(x))), u = silu(conv(inner(x))).

    The inner width is `expand` times the model's; each of its channels has a state of `state` numbers. conv: taps of
    the causal convolution. dt_rank: the width that the step sizes pass through; None: width / 16, rounded up. norm: a
    norm on step sizes, B and C (Jamba, Lieber et al. 2024; FalconMamba). conv_bias: after the convolution; bias: on
    the projections from and to the model's width. chunk: tokens between two states that the backward pass keeps.

    Its FLOPs are those of its projections. The scan is elementwise: about 8 state numbers a channel and token, which
    no count of products has.
    """

    expand: int = 2
    state: int = 16
    conv: int = 4
    dt_rank: int | None = None
    norm: Norm | None = None
    conv_bias: bool = True
    bias: bool = False
    chunk: int = 64

    def __post_init__(self) -> None:
        at_least_one(self, "expand", "state", "conv", "chunk")
        if self.dt_rank is not None and self.dt_rank < 1:
            raise ConfigError(f"dt_rank={self.dt_rank} must be at least 1, or None for width / 16")

    def rank(self, width: int) -> int:
        return math.ceil(width / 16) if self.dt_rank is None else self.dt_rank

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> MambaLayer:
        return MambaLayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        inner, rank = self.expand * width, self.rank(width)
        total = dense(width, inner, length, self.bias) + dense(width, inner, length, self.bias)
        total += conv.cost(self.conv, inner, self.conv_bias)
        total += dense(inner, rank, length) + dense(inner, self.state, length) + dense(inner, self.state, length)
        total += dense(rank, inner, length) + dense(inner, width, length, self.bias)
        if self.norm is not None:
            total += self.norm.cost(rank) + self.norm.cost(self.state) + self.norm.cost(self.state)
        return total + weights(inner * (self.state + 2)) + Cost(cache=inner * self.state)


class MambaLayer(RecurrentLayer):
    def __init__(self, spec: Mamba, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        inner, rank = {"mlp": spec.expand * width}, {"dt_rank": spec.rank(width)}
        channels, state = spec.expand * width, {"head_dim": spec.state}
        self.inner = Linear({"embed": width}, inner, bias=spec.bias, rngs=rngs)
        self.gate = Linear({"embed": width}, inner, bias=spec.bias, rngs=rngs)
        self.conv = conv.CausalConv(spec.conv, inner, bias=spec.conv_bias, rngs=rngs)
        self.dt_down = Linear(inner, rank, rngs=rngs)
        self.B = Linear(inner, state, rngs=rngs)
        self.C = Linear(inner, state, rngs=rngs)
        self.dt_up = Linear(rank, inner, scale=1 / math.sqrt(3), rngs=rngs)  # the deviation of the paper's uniform
        self.dt_bias = param(rngs, (channels,), ("mlp",), dt_bias, precise=True)
        # a vector in every channel, as heads have: no matrix, so that no weight decay pulls decays to 1
        self.A_log = param(rngs, (channels, spec.state), ("heads", "head_dim"), a_log_of_states, precise=True)
        self.D = param(rngs, (channels,), ("mlp",), ones)
        self.out = Linear(inner, {"embed": width}, bias=spec.bias, scale=to_residual(depth), rngs=rngs)
        norm = spec.norm
        self.dt_norm = None if norm is None else norm.build(spec.rank(width), axis="dt_rank", rngs=rngs)
        self.B_norm = None if norm is None else norm.build(spec.state, axis="head_dim", rngs=rngs)
        self.C_norm = None if norm is None else norm.build(spec.state, axis="head_dim", rngs=rngs)

    def mix(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], tokens: Tokens, past: Past
    ) -> tuple[Float[Array, "B L D"], Past]:
        u, tail = self.conv(sharding.constrain(self.inner(x), "batch", "length", "mlp"), tokens, past, "conv")
        dt, b, c = self.dt_down(u), self.B(u), self.C(u)
        if self.dt_norm is not None and self.B_norm is not None and self.C_norm is not None:
            dt, b, c = self.dt_norm(dt), self.B_norm(b), self.C_norm(c)
        dt = self.dt_up(dt).astype(jnp.float32)
        dt = jax.nn.softplus(dt + spread(self.dt_bias[...].astype(jnp.float32), dt)) * tokens.real[..., None]
        a_ND = -jnp.exp(self.A_log[...].astype(jnp.float32)).T
        y, state = selective_scan(u, dt, a_ND, b, c, tokens.resets, past.state, chunk=self.spec.chunk)
        y = recomputed(_gated, y, u, self.gate(x), self.D[...])
        return self.out(y), Past({"conv": tail}, state, last_document(tokens, past))

    def init_cache(self, batch: int, length: int, dtype: Any) -> Past:
        state = jnp.zeros((batch, self.spec.state, *self.conv.channels), jnp.float32)
        return Past({"conv": self.conv.empty(batch, dtype)}, state, jnp.zeros(batch, jnp.int32))


def _gated(y: jax.Array, u: jax.Array, z: jax.Array, d: jax.Array) -> jax.Array:
    y += spread(d.astype(jnp.float32), y) * u
    return (y * jax.nn.silu(z.astype(jnp.float32))).astype(z.dtype)
