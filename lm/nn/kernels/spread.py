"""A parameter vector laid over rows, whose gradient is summed in float32."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from lm.nn.kernels.platform import fast, flat, settled
from lm.shapes import Array


def spread(vector: Array, like: Array) -> Array:
    """`vector` [*D] in the shape of `like` [*rows, *D].

    Its gradient is a sum over all rows, in float32 whatever type the rows have, and then of the vector's type. On CPU
    it is taken as ones times rows, since XLA's own sum of thousands of rows costs up to three times as much there.
    """
    rows = like.shape[: like.ndim - vector.ndim]
    if (*rows, *vector.shape) != like.shape:
        raise ValueError(f"spread: the last dimensions of {like.shape} aren't {vector.shape}")
    if fast("cpu") and flat():
        return _spread(rows, vector)
    return jnp.broadcast_to(vector.astype(jnp.float32), like.shape).astype(vector.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spread(rows: tuple[int, ...], vector: Array) -> Array:
    return jnp.broadcast_to(vector, (*rows, *vector.shape))


def _forward(rows: tuple[int, ...], vector: Array) -> tuple[Array, None]:
    return _spread(rows, vector), None


def _backward(rows: tuple[int, ...], saved: None, cotangent: Array) -> tuple[Array]:
    del saved
    each_ND = cotangent.reshape(math.prod(rows), math.prod(cotangent.shape[len(rows) :]))
    ones_N = jnp.ones(each_ND.shape[0], each_ND.dtype)
    total_D = lax.dot(ones_N, settled(each_ND), preferred_element_type=jnp.float32)
    return (total_D.astype(cotangent.dtype).reshape(cotangent.shape[len(rows) :]),)


_spread.defvjp(_forward, _backward)
