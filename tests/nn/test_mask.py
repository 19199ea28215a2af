"""Masks and sparse patterns against their definition, pair by pair, and what kernels and caches are told of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError
from lm.nn import BlockSparse, Fixed, Mask, Strided, gqa, param
from lm.nn.kernels import attention_blocked
from lm.nn.mask import positions_of
from tests.masks import MASKS, visible
from tests.tiny import packed

BATCH = packed(rows=2, length=9)
PREFIXES = np.array([-1] * 3 + [1] * 4 + [-2] * 5 + [2] * 3 + [3] + [-4] + [0] * 2)


def allowed(mask: Mask, segments: np.ndarray) -> np.ndarray:
    ids = jnp.asarray(segments)[None]
    at = positions_of(ids)
    return np.asarray(mask.allowed(at, at, ids, ids)[0])


@pytest.mark.parametrize("name", MASKS)
def test_the_definition(name: str) -> None:
    for segments in (PREFIXES, np.ones(17, int)):
        np.testing.assert_array_equal(allowed(MASKS[name], segments), visible(MASKS[name], segments))


@pytest.mark.parametrize("name", MASKS)
def test_pairs_and_reach_are_exact(name: str) -> None:
    mask = MASKS[name]
    for length in (1, 2, 6, 7, 40):
        seen = allowed(mask, np.ones(length, int))
        assert mask.pairs(length) == seen.sum()
        assert seen.diagonal().all()  # a query sees itself, so no row is empty
    distance = np.abs(np.subtract(*np.indices((40, 40))))
    assert mask.reach is None or mask.reach == distance[seen].max()
    assert mask.kept(40) == (40 if mask.reach is None else mask.reach + 1)


def test_pairs_of_many_tokens_are_counted_in_parts() -> None:
    mask = Mask(window=2, sinks=3)
    assert mask.pairs(5000) == 1 + 2 + 3 + 4 + 5 * 4996


def test_positions_restart_with_each_document_and_not_after_its_prefix() -> None:
    np.testing.assert_array_equal(positions_of(jnp.asarray(BATCH["segments"])), BATCH["positions"])
    expected = [*range(7), *range(8), 0, 0, 0, 1]
    np.testing.assert_array_equal(positions_of(jnp.asarray(PREFIXES)[None])[0], expected)


def test_only_a_mask_of_prefixes_reads_the_sign() -> None:
    for name, mask in MASKS.items():
        same = np.array_equal(allowed(mask, PREFIXES), allowed(mask, np.abs(PREFIXES)))
        assert same != mask.prefix, name


def test_random_blocks_are_drawn_anew_for_each_block_and_seed() -> None:
    of = [allowed(Mask(pattern=BlockSparse(size=1, near=0, random=2, seed=s)), np.ones(200, int)) for s in (0, 1)]
    far = [seen & ~np.eye(200, dtype=bool) for seen in of]
    assert (far[0] != far[1]).any()
    for seen in far:
        counts = seen[20:].sum(axis=1)
        assert counts.max() == 2 and counts.mean() > 1.9  # two draws rarely fall together
        where = np.concatenate([np.flatnonzero(row) / i for i, row in enumerate(seen) if i])
        np.testing.assert_allclose(np.histogram(where, bins=4, range=(0, 1))[0] / len(where), 0.25, atol=0.07)
    pairs = [Mask(pattern=BlockSparse(size=4, random=1)).pairs(n) for n in (200, 400, 800)]
    assert 1.9 < pairs[1] / pairs[0] < 2.1 and 1.9 < pairs[2] / pairs[1] < 2.1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Mask(window=0), "window=0 must be at least 1"),
        (lambda: Mask(causal=False, prefix=True), "causal=False has none to lift"),
        (lambda: Mask(sinks=-1, window=3), "sinks=-1 must be"),
        (lambda: Mask(sinks=2), "beyond a window or a pattern"),
        (lambda: Strided(stride=0), "stride=0 must be at least 1"),
        (lambda: Strided(stride=2, count=0), "count=0 must be at least 1"),
        (lambda: Fixed(stride=2, summary=3), "summary=3 positions of a block of stride=2"),
        (lambda: BlockSparse(size=2, near=-1), "near=-1"),
        (lambda: Mask(causal=False).slots(4), "can't decode from a cache"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert said in str(error.value)


LONG: dict[str, Mask] = {
    "prefix": Mask(prefix=True),
    "prefix, window": Mask(prefix=True, window=40),
    "sinks": Mask(window=40, sinks=3),
    "dilated": Mask(pattern=Strided(stride=10, count=4)),
    "strided": Mask(window=20, pattern=Strided(stride=32)),
    "blocks": Mask(causal=False, pattern=BlockSparse(size=16, near=1)),
    "random blocks": Mask(sinks=1, pattern=BlockSparse(size=16, near=0, random=1)),
}


@pytest.mark.parametrize("name", LONG)
def test_blocks_of_queries_cover_what_is_seen_and_skip_what_is_not(name: str) -> None:
    mask, length = LONG[name], 300
    covered = np.zeros((length, length), int)
    for block in attention_blocked.blocks(mask, length, length, True):
        covered[block.start : block.stop, block.low : block.high] += 1
    segments = np.concatenate([np.full(60, -1), np.full(90, 1), np.full(20, -2), np.full(130, 2)])
    assert np.all(covered[visible(mask, segments)] == 1) and covered.max() == 1
    assert covered.all() if mask == Mask(prefix=True) else covered.mean() < 0.75


def layer_of(mask: Mask) -> tuple[Any, Any]:
    """A layer of attention as a compiled function of (x, positions, segments, cache), and an empty cache."""
    graph, params = param.split(gqa(4, 2, mask=mask).build(16, rngs=param.nnx.Rngs(0)))
    params = jax.tree.map(lambda p: 2 * p, params)
    run = jax.jit(lambda x, at, ids, cache: param.merge(graph, params)(x, at, ids, cache))
    return run, param.merge(graph, params)


@pytest.mark.parametrize("name", ["prefix", "prefix, window", "everything"])
def test_a_prefix_in_one_call_and_then_token_by_token_is_the_whole(name: str) -> None:
    run, layer = layer_of(MASKS[name])
    length, prefix = 14, 6
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, length, 16)), jnp.float32)
    segments = jnp.asarray([[-1] * prefix + [1] * (length - prefix)] * 2)
    at = positions_of(segments)
    full, _ = run(x, at, segments, None)
    cache, found = layer.init_cache(2, length, jnp.float32), []
    for part in (slice(0, prefix), *(slice(i, i + 1) for i in range(prefix, length))):
        y, cache = run(x[:, part], at[:, part], segments[:, part], cache)
        found.append(y)
    np.testing.assert_allclose(np.concatenate(found, axis=1), full, atol=1e-5)
    causal, _ = layer_of(dataclasses.replace(MASKS[name], prefix=False))
    assert np.abs(causal(x, at, segments, None)[0] - full)[:, : prefix - 1].max() > 0.1
