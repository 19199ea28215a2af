"""The grouped product of fewer rows than there is room for: what is beyond the sizes is 0 and takes part in nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.nn.kernels.grouped import grouped

SIZES = np.array([[3, 0, 30, 1], [0, 0, 0, 0], [20, 20, 0, 10]], np.int32)
ROWS, IN, OUT = 50, 5, 3


def drawn(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def outcome(plain: bool, x: jax.Array, w: jax.Array, sizes: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    def scalar(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = grouped(x, w, sizes, plain=plain)
        return jnp.sum(y * drawn(7, ROWS, OUT)), y

    grads, y = jax.grad(scalar, (0, 1), has_aux=True)(x, w)
    return y, grads


@pytest.mark.parametrize("plain", [False, True])
def test_rows_beyond_the_sizes_are_nothing(plain: bool) -> None:
    """By each form, alone and under vmap, where the rows of several products lie side by side."""
    x, w = drawn(0, len(SIZES), ROWS, IN), drawn(1, len(SIZES), 4, IN, OUT)
    together = jax.jit(jax.vmap(lambda *arrays: outcome(plain, *arrays)))(x, w, SIZES)
    alone = jax.jit(lambda *arrays: outcome(plain, *arrays))
    for i, sizes in enumerate(SIZES):
        group = np.repeat(np.arange(4), sizes)
        dy = np.asarray(drawn(7, ROWS, OUT))
        y, dx, dw = np.zeros((ROWS, OUT)), np.zeros((ROWS, IN)), np.zeros((4, IN, OUT))
        for a, e in enumerate(group):
            y[a], dx[a] = np.asarray(x[i, a]) @ np.asarray(w[i, e]), np.asarray(w[i, e]) @ dy[a]
            dw[e] += np.outer(x[i, a], dy[a])
        for found in (alone(x[i], w[i], sizes), jax.tree.map(lambda leaf, i=i: leaf[i], together)):
            np.testing.assert_allclose(found[0], y, atol=1e-5)
            np.testing.assert_allclose(found[1][0], dx, atol=1e-5)
            np.testing.assert_allclose(found[1][1], dw, atol=2e-5)
            assert not np.asarray(found[0][len(group) :]).any()
