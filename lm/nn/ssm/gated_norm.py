"""The gate and the norm between a state and the output projection, in either order."""

from __future__ import annotations

import abc

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import config
from lm.nn.kernels.recompute import recomputed
from lm.nn.kernels.spread import spread
from lm.nn.linear import Dims
from lm.nn.param import ones, param
from lm.shapes import Array, Float


class GatedNorm(abc.ABC):
    """What an output y and its gate z become: a root mean square norm over the last axis, a scale, and silu(z)."""

    epsilon: float

    def build(self, dims: Dims, *, rngs: nnx.Rngs) -> GatedNormLayer:
        """dims: the axes of the scale, the last ones of y."""
        return GatedNormLayer(self, dims, rngs=rngs)

    @abc.abstractmethod
    def gated(
        self, y: Float[Array, "*B P"], z: Float[Array, "*B P"], scale: Float[Array, "*B P"]
    ) -> Float[Array, "*B P"]: ...

    def in_float32(
        self, y: Float[Array, "*B P"], z: Float[Array, "*B P"], scale: Float[Array, "*S P"]
    ) -> Float[Array, "*B P"]:
        y32, z32, scale32 = (a.astype(jnp.float32) for a in (y, z, scale))
        return self.gated(y32, z32, spread(scale32, y32)).astype(y.dtype)

    def normalized(self, y: Float[Array, "*B P"]) -> Float[Array, "*B P"]:
        return y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.epsilon)


@config
class GateThenNorm(GatedNorm):
    """norm(y silu(z)) (Mamba-2, Dao and Gu 2024, section 7)."""

    epsilon: float = 1e-5

    def gated(
        self, y: Float[Array, "*B P"], z: Float[Array, "*B P"], scale: Float[Array, "*B P"]
    ) -> Float[Array, "*B P"]:
        return self.normalized(y * jax.nn.silu(z)) * scale


@config
class NormThenGate(GatedNorm):
    """norm(y) silu(z) (RetNet, Sun et al. 2023, equation 8; gated delta nets)."""

    epsilon: float = 1e-6

    def gated(
        self, y: Float[Array, "*B P"], z: Float[Array, "*B P"], scale: Float[Array, "*B P"]
    ) -> Float[Array, "*B P"]:
        return self.normalized(y) * scale * jax.nn.silu(z)


class GatedNormLayer(nnx.Module):
    """`layer(y, z) -> y`, computed in float32."""

    def __init__(self, spec: GatedNorm, dims: Dims, *, rngs: nnx.Rngs):
        self.spec = spec
        self.scale = param(rngs, tuple(dims.values()), tuple(dims), ones)

    def __call__(self, y: Float[Array, "*B P"], z: Float[Array, "*B P"]) -> Float[Array, "*B P"]:
        with jax.named_scope("norm"):
            return recomputed(self.spec.in_float32, y, z, self.scale[...])
