"""The key-value cache of attention: a full one, or a ring that keeps the last positions of a window."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class KVCache(NamedTuple):
    """Keys and values of what was seen, with the positions and segments that masks ask for. Segment 0: empty."""

    k: jax.Array  # [B S K P]
    v: jax.Array  # [B S K P]
    positions: jax.Array  # [B S]
    segments: jax.Array  # [B S]
    written: jax.Array  # [] tokens written so far; token i is in slot i mod S


def empty(batch: int, length: int, kv_heads: int, head_width: int, dtype: Any) -> KVCache:
    values = jnp.zeros((batch, length, kv_heads, head_width), dtype)
    slots = jnp.zeros((batch, length), jnp.int32)
    return KVCache(values, values, slots, slots, jnp.zeros((), jnp.int32))


def write(cache: KVCache, k: jax.Array, v: jax.Array, positions: jax.Array, segments: jax.Array) -> KVCache:
    """The cache with L more tokens; where they are more than its slots, the last ones stay."""
    size, length = cache.k.shape[1], k.shape[1]
    keep = min(length, size)
    slots = (cache.written + jnp.arange(length - keep, length)) % size

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        new = new.astype(old.dtype)
        if length == 1:  # a slice update is done in place, a scatter may copy
            return jax.lax.dynamic_update_slice_in_dim(old, new, slots[0], axis=1)
        return old.at[:, slots].set(new[:, length - keep :])

    kept = put(cache.k, k), put(cache.v, v), put(cache.positions, positions), put(cache.segments, segments)
    return KVCache(*kept, cache.written + length)


def joined(
    cache: KVCache, k: jax.Array, v: jax.Array, positions: jax.Array, segments: jax.Array
) -> tuple[jax.Array, ...]:
    """What is cached followed by the new tokens: (k, v, positions, segments).

    A ring needs this for more than one token, since writing the last of them erases what the first must see.
    """
    new = (k.astype(cache.k.dtype), v.astype(cache.v.dtype), positions, segments)
    return tuple(jnp.concatenate(pair, axis=1) for pair in zip(cache[:4], new, strict=True))
