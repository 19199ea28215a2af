"""What mixers keep of the tokens they have seen, and the key-value cache of attention.

A program that adds tokens one by one carries what changes through its loop, and every carried array may be copied in
every turn (XLA on CPU does so where the array has an axis of size 1). So a cache says what a run of tokens leaves as
it is: `begin` before the run, `split` and `join` around each turn, `end` after it.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lm.nn.kernels.attention_decode import Slots
from lm.nn.kernels.platform import fast


class Cache:
    """One layer's cache: a pytree of arrays. A mixer whose whole cache changes with each token defines nothing here.

    `cache = cache.begin(n)`, then up to n tokens one by one, each on `join(fixed, moving)` with `fixed` from before
    the first of them and `moving` from after the one before, then `cache = cache.end()`.
    """

    def begin(self, tokens: int) -> Cache:
        """The cache made ready for up to `tokens` tokens that are added one by one."""
        del tokens
        return self

    def split(self) -> tuple[Any, Any]:
        """(fixed, moving): what tokens after `begin` leave as it is, and what they change."""
        return (), self

    def join(self, fixed: Any, moving: Any) -> Cache:
        """The cache of which `split` gave these."""
        del fixed
        return moving

    def end(self) -> Cache:
        """The cache as `begin` found it, with the tokens that came since."""
        return self


AXES = (3, 2, 1, 1)  # the axis of slots in each array of `Slots`


def slots(k: jax.Array, v: jax.Array, positions: jax.Array, segments: jax.Array, dtype: Any) -> Slots:
    """Tokens as a layer makes them, k and v [B L K P], in the cache's layout and type."""
    return Slots(k.transpose(0, 2, 3, 1).astype(dtype), v.swapaxes(1, 2).astype(dtype), positions, segments)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["kept", "written"], meta_fields=["ring"])
@dataclass(frozen=True)
class KVCache(Cache):
    """All tokens up to the number of slots; with `ring` the last ones, so that there is always room.

    Token i is in slot i mod S. Without a ring there is no slot for a token past the end: its keys, and so all that see
    it, become NaN.
    """

    kept: Slots
    written: jax.Array  # [] tokens so far
    ring: bool

    @property
    def dtype(self) -> Any:
        return self.kept.k.dtype

    def extended(self, new: Slots) -> tuple[KVCache, tuple[Slots, ...]]:
        """The cache with L more tokens, and the parts that hold all that these may see."""
        size, length = self.kept.count, new.count
        if not self.ring:
            new = _nan_unless(self.written + length <= size, new)
        if length == 1:  # a slice update is done in place, a scatter may copy
            kept = _placed(self.kept, new, self.written % size)
        else:
            keep = min(length, size)
            last = _part(new, length - keep, keep)
            at = (self.written + jnp.arange(length - keep, length)) % size
            arrays = zip(AXES, self.kept, last, strict=True)
            kept = Slots(*(old.at[(slice(None),) * axis + (at,)].set(x) for axis, old, x in arrays))
        # writing the last of several tokens into a ring erases what the first must see
        seen = (self.kept, new) if self.ring and length > 1 else (kept,)
        return KVCache(kept, self.written + length, self.ring), seen

    def begin(self, tokens: int) -> Cache:
        if not (fast("cpu") and 1 in self.kept.k.shape[:2]):  # others are changed in place, and one part is read faster
            return self
        shapes = [(*x.shape[:axis], tokens, *x.shape[axis + 1 :]) for axis, x in zip(AXES, self.kept, strict=True)]
        none = Slots(*(jnp.zeros(shape, x.dtype) for shape, x in zip(shapes, self.kept, strict=True)))
        return OpenKVCache(self, none, jnp.int32(0))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["filled", "recent", "count"], meta_fields=[])
@dataclass(frozen=True)
class OpenKVCache(Cache):
    """A cache that stays as it is while the tokens of a run go to a small buffer beside it."""

    filled: KVCache
    recent: Slots
    count: jax.Array  # [] tokens in `recent`

    @property
    def dtype(self) -> Any:
        return self.filled.dtype

    def extended(self, new: Slots) -> tuple[OpenKVCache, tuple[Slots, ...]]:
        """As `KVCache.extended`; NaN also beyond the tokens that `begin` was asked for."""
        after = self.count + new.count
        room = after <= self.recent.count
        if not self.filled.ring:
            room &= self.filled.written + after <= self.filled.kept.count
        recent = _placed(self.recent, _nan_unless(room, new), self.count)
        return OpenKVCache(self.filled, recent, after), (self.filled.kept, recent)

    def split(self) -> tuple[Any, Any]:
        return self.filled, (self.recent, self.count)

    def join(self, fixed: Any, moving: Any) -> Cache:
        return OpenKVCache(fixed, *moving)

    def end(self) -> Cache:
        old = self.filled
        size, length = old.kept.count, self.recent.count
        if old.ring or length >= size:
            kept = self._by_slot()
        else:  # where the buffer is longer than what is left, it is moved back, over slots that keep what they have
            start = jnp.minimum(old.written, size - length)
            moved = old.written - start
            index = jnp.arange(length) - moved
            fresh = (index >= 0) & (index < self.count)
            arrays = zip(AXES, _part(old.kept, start, length), self.recent, strict=True)
            block = Slots(*(_where(fresh, jnp.roll(x, moved, axis), kept, axis) for axis, kept, x in arrays))
            kept = _placed(old.kept, block, start)
        return dataclasses.replace(old, kept=kept, written=old.written + self.count)

    def _by_slot(self) -> Slots:
        """Each slot with the last recent token that belongs there, if there is one."""
        old = self.filled
        size, total = old.kept.count, old.written + self.count
        slot = jnp.arange(size)
        last = slot + (total - 1 - slot) // size * size  # the last token of this slot
        index = last - old.written
        fresh = (index >= 0) & (last < total)
        index = jnp.clip(index, 0, self.recent.count - 1)
        arrays = zip(AXES, old.kept, self.recent, strict=True)
        return Slots(*(_where(fresh, jnp.take(x, index, axis), kept, axis) for axis, kept, x in arrays))


def empty(
    batch: int,
    length: int,
    kv_heads: int,
    head_width: int,
    dtype: Any,
    *,
    ring: bool,
    values: tuple[int, int] | None = None,
) -> KVCache:
    """values: heads and width of the values where they aren't the keys'."""
    heads, width = (kv_heads, head_width) if values is None else values
    k, v = jnp.zeros((batch, kv_heads, head_width, length), dtype), jnp.zeros((batch, heads, length, width), dtype)
    ids = jnp.zeros((batch, length), jnp.int32)
    return KVCache(Slots(k, v, ids, ids), jnp.int32(0), ring)


def _nan_unless(room: jax.Array, new: Slots) -> Slots:
    return new._replace(k=jnp.where(room, new.k, jnp.nan))


def _part(of: Slots, start: Any, length: int) -> Slots:
    return Slots(*(lax.dynamic_slice_in_dim(x, start, length, axis) for axis, x in zip(AXES, of, strict=True)))


def _placed(old: Slots, new: Slots, start: jax.Array) -> Slots:
    arrays = zip(AXES, old, new, strict=True)
    return Slots(*(lax.dynamic_update_slice_in_dim(kept, x, start, axis) for axis, kept, x in arrays))


def _where(fresh_S: jax.Array, new: jax.Array, old: jax.Array, axis: int) -> jax.Array:
    return jnp.where(jnp.expand_dims(fresh_S, tuple(range(1, old.ndim - axis))), new, old)
