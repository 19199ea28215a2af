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
    values = jnp.zeros((batch, length, kv_heads * head_width), dtype)
    slots = jnp.zeros((batch, length), jnp.int32)
    return KVCache(values, values, slots, slots, jnp.zeros((), jnp.int32))


def write(cache: KVCache, k: jax.Array, v: jax.Array, positions: jax.Array, segments: jax.Array) -> KVCache:
    """The cache with L more tokens, k and v [B L K P]; where they are more than its slots, the last ones stay."""
    size, length = cache.k.shape[1], k.shape[1]
    new = _like(cache, k, v, positions, segments)
    if length == 1:  # a slice update is done in place, a scatter may copy
        start = cache.written % size
        kept = [
            jax.lax.dynamic_update_slice_in_dim(old, x, start, axis=1) for old, x in zip(cache[:4], new, strict=True)
        ]
    else:
        keep = min(length, size)
        slots = (cache.written + jnp.arange(length - keep, length)) % size
        kept = [old.at[:, slots].set(x[:, length - keep :]) for old, x in zip(cache[:4], new, strict=True)]
    k, v, positions, segments = kept
    return KVCache(k, v, positions, segments, cache.written + length)


def seen(cache: KVCache, kv_heads: int) -> tuple[jax.Array, ...]:
    """What is cached: k and v [B S K P], positions and segments [B S]."""
    k, v = (x.reshape(*x.shape[:2], kv_heads, -1) for x in (cache.k, cache.v))
    return k, v, cache.positions, cache.segments


def joined(
    cache: KVCache, k: jax.Array, v: jax.Array, positions: jax.Array, segments: jax.Array
) -> tuple[jax.Array, ...]:
    """What is cached followed by the new tokens, as `seen` gives it.

    A ring needs this for more than one token, since writing the last of them erases what the first must see.
    """
    new = (k.astype(cache.k.dtype), v.astype(cache.v.dtype), positions, segments)
    return tuple(jnp.concatenate(pair, axis=1) for pair in zip(seen(cache, k.shape[2]), new, strict=True))


def _like(cache: KVCache, k: jax.Array, v: jax.Array, *slots: jax.Array) -> tuple[jax.Array, ...]:
    """New keys and values in the cache's layout and type."""
    flat = (x.reshape(*x.shape[:2], -1).astype(cache.k.dtype) for x in (k, v))
    return (*flat, *slots)
