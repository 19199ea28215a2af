"""Normalisation over the last dimension, computed in float32 whatever the activations' type."""

from __future__ import annotations

import abc

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import config
from lm.nn.cost import Cost, weights
from lm.nn.kernels.recompute import recomputed
from lm.nn.kernels.spread import spread
from lm.nn.param import ones, param, zeros
from lm.shapes import Array, Float


class Norm(abc.ABC):
    """A kind of normalisation."""

    @abc.abstractmethod
    def build(self, width: int, *, rngs: nnx.Rngs, axis: str = "embed") -> nnx.Module: ...

    @abc.abstractmethod
    def cost(self, width: int) -> Cost: ...


@config
class RMSNorm(Norm):
    """Divides by the root mean square (Zhang and Sennrich 2019). zero_centered: the scale is 1 + w, w starting at 0."""

    epsilon: float = 1e-6
    bias: bool = False
    zero_centered: bool = False

    def build(self, width: int, *, rngs: nnx.Rngs, axis: str = "embed") -> NormLayer:
        return NormLayer(self, width, axis=axis, rngs=rngs)

    def normalized(self, x: Float[Array, "*B D"], *affine: Float[Array, " D"]) -> Float[Array, "*B D"]:
        """x normalised, then scaled and shifted by what `affine` holds."""
        x32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        return _affine(x32 * jax.lax.rsqrt(mean_square + self.epsilon), self.zero_centered, *affine).astype(x.dtype)

    def cost(self, width: int) -> Cost:
        return weights(width * (2 if self.bias else 1))


@config
class LayerNorm(Norm):
    """Subtracts the mean and divides by the standard deviation (Ba et al. 2016)."""

    epsilon: float = 1e-5
    bias: bool = True
    zero_centered: bool = False

    def build(self, width: int, *, rngs: nnx.Rngs, axis: str = "embed") -> NormLayer:
        return NormLayer(self, width, axis=axis, rngs=rngs)

    def normalized(self, x: Float[Array, "*B D"], *affine: Float[Array, " D"]) -> Float[Array, "*B D"]:
        """x normalised, then scaled and shifted by what `affine` holds."""
        centred = x.astype(jnp.float32) - jnp.mean(x, axis=-1, keepdims=True, dtype=jnp.float32)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        return _affine(centred * jax.lax.rsqrt(variance + self.epsilon), self.zero_centered, *affine).astype(x.dtype)

    def cost(self, width: int) -> Cost:
        return weights(width * (2 if self.bias else 1))


class NormLayer(nnx.Module):
    """`layer(x) -> y`: the normalisation, then a learned scale and shift."""

    def __init__(self, spec: RMSNorm | LayerNorm, width: int, *, axis: str, rngs: nnx.Rngs):
        self.spec = spec
        self.scale = param(rngs, (width,), (axis,), zeros if spec.zero_centered else ones)
        self.bias = param(rngs, (width,), (axis,), zeros) if spec.bias else None

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        affine = (self.scale[...],) if self.bias is None else (self.scale[...], self.bias[...])
        with jax.named_scope("norm"):
            return recomputed(self.spec.normalized, x, *affine)


def _affine(x: jax.Array, zero_centered: bool, scale: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    scale = scale.astype(jnp.float32)
    y = x * spread(1 + scale if zero_centered else scale, x)
    return y if bias is None else y + spread(bias.astype(jnp.float32), y)
