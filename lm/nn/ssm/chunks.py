"""A recurrence done in chunks of tokens: inside a chunk at once, from chunk to chunk by a state.

The backward pass keeps the state before each chunk, and computes the inside of a chunk again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Body = Callable[..., tuple[jax.Array, jax.Array]]  # (state, *parts [B c ...]) -> (state, y [B c ...])


def balanced(length: int, most: int) -> tuple[int, int]:
    """(count, size): as few chunks of at most `most` tokens as hold `length`, all of one size, which is the smallest.

    They are longer than `length` together by fewer than `count` tokens.
    """
    count = -(-length // most)
    return count, -(-length // count)


def over_chunks(body: Body, state: jax.Array, arrays: tuple[Any, ...], most: int) -> tuple[jax.Array, jax.Array]:
    """`body` over chunks of the arrays [B L ...] -> (y [B L ...], the state after them).

    What is missing of the last chunk is 0, which the body must take for tokens that change nothing.
    """
    batch, length = arrays[0].shape[:2]
    count, size = balanced(length, most)
    if count == 1:
        state, y = body(state, *arrays)
        return y, state

    def split(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, [(0, 0), (0, count * size - length), *[(0, 0)] * (x.ndim - 2)])
        return padded.reshape(batch, count, size, *x.shape[2:]).swapaxes(0, 1)

    inside = jax.checkpoint(body, prevent_cse=False)  # in a scan nothing can be merged with the forward pass
    state, y = lax.scan(lambda state, parts: inside(state, *parts), state, tuple(map(split, arrays)))
    return y.swapaxes(0, 1).reshape(batch, count * size, *y.shape[3:])[:, :length], state
