"""A cache that is opened for a run of tokens and closed again is one that took them one by one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.nn import cache as kv
from lm.nn.kernels.platform import plain_forms

B, K, P = 2, 1, 3


def token(number: int, length: int = 1) -> kv.Slots:
    """Tokens `number`, `number + 1`, ... with values that say which they are."""
    at = jnp.arange(number, number + length)
    k = 1.0 + at[None, :, None, None] + jnp.arange(P) / 10 + jnp.zeros((B, length, K, P))
    positions = jnp.broadcast_to(at, (B, length))
    return kv.slots(k, -k, positions, jnp.ones_like(positions), jnp.float32)


def same(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("size", [1, 3, 4, 10, 30])
@pytest.mark.parametrize("most", [1, 4, 7])
def test_a_run_is_its_tokens_one_by_one(size: int, most: int, ring: bool) -> None:
    plain = kv.empty(B, size, K, P, jnp.float32, ring=ring)
    plain = plain.extended(token(0, 2))[0] if ring or size > 1 else plain
    runs: kv.Cache = plain
    number = int(plain.written)
    for count in (most, max(1, most - 2), 0, most, 1):
        opened = runs.begin(most)
        fixed, moving = opened.split()
        for _ in range(count):
            if not ring and number == size:
                break
            plain = plain.extended(token(number))[0]
            after, _ = opened.join(fixed, moving).extended(token(number))  # type: ignore[attr-defined]
            same(after.split()[0], fixed)
            moving, number = after.split()[1], number + 1
        runs = opened.join(fixed, moving).end()
        same(runs, plain)
    assert number > size or not ring or size > 4 * most


def test_a_run_sees_all_that_came_before() -> None:
    cache = kv.empty(B, 4, K, P, jnp.float32, ring=True).extended(token(0, 6))[0].begin(3)
    for number in (6, 7):
        cache, parts = cache.extended(token(number))  # type: ignore[attr-defined]
    seen = np.concatenate([part.positions[0][np.asarray(part.segments[0]) > 0] for part in parts])
    assert sorted(seen) == [2, 3, 4, 5, 6, 7]


def test_beyond_the_room_keys_are_nan() -> None:
    full = kv.empty(B, 3, K, P, jnp.float32, ring=False).extended(token(0, 3))[0]
    assert np.isnan(full.extended(token(3))[0].kept.k).any()
    opened = full.begin(8)
    _, parts = opened.extended(token(3))  # type: ignore[attr-defined]
    assert np.isnan(parts[1].k).any() and not np.isnan(parts[0].k).any()
    short = kv.empty(B, 9, K, P, jnp.float32, ring=True).begin(1)
    for number in (0, 1):
        short, parts = short.extended(token(number))  # type: ignore[attr-defined]
    assert np.isnan(parts[1].k).any(), "more tokens than the run was begun for"


def test_where_nothing_is_gained_a_cache_stays_one() -> None:
    cache = kv.empty(B, 3, K, P, jnp.float32, ring=False)
    assert cache.begin(4) is not cache
    with plain_forms():
        assert cache.begin(4) is cache
    several = kv.empty(2, 3, 2, P, jnp.float32, ring=False)
    assert several.begin(4) is several
    assert isinstance(kv.empty(1, 3, 2, P, jnp.float32, ring=False).begin(4), kv.OpenKVCache)
    fixed, moving = cache.split()
    assert cache.join(fixed, moving) is cache and cache.end() is cache
