"""Systems (1 + T) u = w with T strictly lower triangular, by matrix products alone.

A library's triangular solve is one sequence a matrix, and slow for many small ones. Here the inverse is put together
from those of its diagonal blocks, all of one size at once, and of twice the size in each step:

    [[A, 0], [B, C]]^-1 = [[A^-1, 0], [-C^-1 B A^-1, C^-1]]
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lm.shapes import Array, Float


@jax.custom_vjp
def solve(lower: Float[Array, "*B c c"], wanted: Float[Array, "*B c P"]) -> Float[Array, "*B c P"]:
    """u of (1 + lower) u = wanted. What `lower` has on and above its diagonal must be 0."""
    return _product(_inverse(lower), wanted)


def flops(size: int, width: int) -> int:
    """Of the products in `solve` of one matrix [size size] for `width` columns."""
    full = _rounded(size)
    return 2 * full * (full**2 - 1) // 3 + 2 * size**2 * width


def _forward(lower: jax.Array, wanted: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    inverse = _inverse(lower)
    u = _product(inverse, wanted)
    return u, (inverse, u)


def _backward(saved: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    inverse, u = saved
    back = _product(inverse.mT, cotangent)
    return -_product(back, u.mT), back


solve.defvjp(_forward, _backward)


def _inverse(lower: jax.Array) -> jax.Array:
    size, before = lower.shape[-1], lower.shape[:-2]
    full = _rounded(size)
    lower = jnp.pad(lower, [*[(0, 0)] * len(before), (0, full - size), (0, full - size)])
    inverse, half = jnp.ones((*before, full, 1, 1), lower.dtype), 1  # of the diagonal blocks of size `half`
    while half < full:
        pairs = full // (2 * half)
        blocks = lower.reshape(*before, pairs, 2, half, pairs, 2, half)
        b = jnp.moveaxis(jnp.diagonal(blocks[..., 1, :, :, 0, :], axis1=-4, axis2=-2), -1, -3)
        a, c = inverse[..., ::2, :, :], inverse[..., 1::2, :, :]
        corner = -_product(_product(c, b), a)
        inverse = jnp.concatenate(
            [jnp.concatenate([a, jnp.zeros_like(a)], axis=-1), jnp.concatenate([corner, c], axis=-1)], axis=-2
        )
        half *= 2
    return inverse[..., 0, :size, :size]


def _rounded(size: int) -> int:
    """The next power of two."""
    return 1 << (size - 1).bit_length()


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")  # errors of a chunk's first tokens reach all others
