"""The short causal convolution in front of a state: each channel by itself, then SiLU."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm.nn.cost import Cost, weights
from lm.nn.kernels.recompute import recomputed
from lm.nn.kernels.spread import spread
from lm.nn.linear import Dims
from lm.nn.param import Initializer, param
from lm.nn.ssm.cache import Past, Tokens, last_document
from lm.shapes import Array, Float


class CausalConv(nnx.Module):
    """silu(b + sum_i w_i x_{t - W + 1 + i}) over the last `taps` = W tokens of the document, the last tap at t itself.

    `conv(x, tokens, past, name) -> (y, tail)`; the tail is what `past.tails[name]` holds for the tokens that follow.
    """

    def __init__(self, taps: int, channels: Dims, *, bias: bool, rngs: nnx.Rngs):
        self.taps, self.channels = taps, tuple(channels.values())
        shape, names = self.channels, tuple(channels)
        # the axis of taps is one of a table of relative positions: no optimizer takes it for a map between spaces
        self.kernel = param(rngs, (taps, *shape), ("positions", *names), uniform(1 / math.sqrt(taps)))
        self.bias = param(rngs, shape, names, uniform(1 / math.sqrt(taps))) if bias else None

    def __call__(
        self, x: Float[Array, "B L *C"], tokens: Tokens, past: Past, name: str
    ) -> tuple[Float[Array, "B L *C"], Float[Array, "B T *C"]]:
        tail = past.tails[name]
        known = jnp.concatenate([tail.astype(x.dtype), x], axis=1)
        document = jnp.concatenate([jnp.broadcast_to(past.document[:, None], tail.shape[:2]), tokens.document], axis=1)
        bias = () if self.bias is None else (self.bias[...],)
        y = recomputed(_convolved, known, document, self.kernel[...], *bias)
        return y, self._tail(known, document, tokens, past).astype(tail.dtype)

    def _tail(self, known: jax.Array, document: jax.Array, tokens: Tokens, past: Past) -> jax.Array:
        """The last real inputs, without those of other documents than the last."""
        at = tokens.real.sum(axis=1)[:, None] + jnp.arange(self.taps - 1)
        same = jnp.take_along_axis(document, at, axis=1) == last_document(tokens, past)[:, None]
        rows = (1,) * (known.ndim - 2)
        return jnp.take_along_axis(known, at.reshape(*at.shape, *rows), axis=1) * same.reshape(*same.shape, *rows)

    def empty(self, batch: int, dtype: Any) -> jax.Array:
        return jnp.zeros((batch, self.taps - 1, *self.channels), dtype)


def cost(taps: int, channels: int, bias: bool) -> Cost:
    """Elementwise, so no FLOPs of products: 2 `taps` a channel and token."""
    return weights(channels * (taps + bias)) + Cost(cache=channels * (taps - 1))


def uniform(limit: float) -> Initializer:
    """Uniform values from -limit to limit."""
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -limit, limit)


def _convolved(known: jax.Array, document: jax.Array, kernel: jax.Array, *bias: jax.Array) -> jax.Array:
    taps = len(kernel)
    length = known.shape[1] - taps + 1
    now, total = document[:, taps - 1 :], 0.0
    for i in range(taps):
        x = known[:, i : i + length].astype(jnp.float32)
        if i < taps - 1:
            x *= (document[:, i : i + length] == now).reshape(*now.shape, *(1,) * (x.ndim - 2))
        total += x * spread(kernel[i].astype(jnp.float32), x)
    for b in bias:
        total += spread(b.astype(jnp.float32), total)  # type: ignore[arg-type]
    return jax.nn.silu(total).astype(known.dtype)  # type: ignore[arg-type]
