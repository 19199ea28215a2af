"""MLA: its two forms are one function, and its cache holds a latent and a shared key a token."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import ConfigError
from lm.nn import MLA, ALiBi, Mask, param
from lm.nn.mla import MLALayer
from tests.masks import visible

B, L, D = 2, 10, 16
X = jnp.asarray(np.random.default_rng(1).normal(size=(B, L, D)), jnp.float32)
AT = jnp.broadcast_to(jnp.arange(L), (B, L))
SPECS = {
    "plain": MLA(heads=3, kv_rank=6, nope_width=4, rope_width=2, value_width=5),
    "query latent, window": MLA(
        heads=2, kv_rank=5, q_rank=7, nope_width=2, rope_width=4, value_width=3, mask=Mask(window=4)
    ),
    "sinks, bias of positions": MLA(
        heads=4, kv_rank=4, nope_width=3, rope_width=2, value_width=3, position=ALiBi(), mask=Mask(window=3, sinks=1)
    ),
}


def layer_of(spec: MLA) -> Any:
    graph, shapes = param.split(nnx.eval_shape(lambda: spec.build(D, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    return param.merge(graph, jax.tree.map(lambda s: jnp.asarray(0.7 * rng.normal(size=s.shape), jnp.float32), shapes))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("absorbed", [True, False])
def test_either_form_from_a_cache_is_training(name: str, absorbed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of(SPECS[name])
    full, _ = layer(X, AT, jnp.ones_like(AT))
    monkeypatch.setattr(MLALayer, "_absorbing_is_cheaper", lambda *_: absorbed)
    read = {True: "read_expanded", False: "read_absorbed"}[absorbed]
    monkeypatch.setattr(MLALayer, read, None)  # the other form isn't called
    cache, found = layer.init_cache(B, L, jnp.float32), []
    for part in (slice(0, 4), slice(4, 5), slice(5, L)):
        y, cache = layer(X[:, part], AT[:, part], jnp.ones_like(AT[:, part]), cache)
        found.append(y)
    assert np.std(full) > 0.1
    np.testing.assert_allclose(np.concatenate(found, axis=1), full, atol=1e-5 * float(np.abs(full).max()))


def test_decoding_absorbs_and_a_long_prompt_expands() -> None:
    spec = MLA(heads=128, kv_rank=512, q_rank=1536, nope_width=128, rope_width=64, value_width=128)  # DeepSeek-V3
    layer = nnx.eval_shape(lambda: spec.build(64, rngs=nnx.Rngs(0)))

    def products(queries: int, keys: int, absorbed: bool) -> int:
        pair = 2 * 512 + 64 if absorbed else 128 + 64 + 128
        return queries * keys * pair + (queries if absorbed else keys) * 512 * (128 + 128)

    for queries, keys in ((1, 4096), (1, 2), (4, 4096), (100, 4096), (200, 4096), (4096, 4096), (8, 8)):
        cheaper = products(queries, keys, True) < products(queries, keys, False)
        assert layer._absorbing_is_cheaper(queries, keys) == cheaper, (queries, keys)
    assert layer._absorbing_is_cheaper(1, 4096) and not layer._absorbing_is_cheaper(4096, 4096)


def test_the_cache_is_a_latent_and_one_key() -> None:
    spec = SPECS["plain"]
    cache = layer_of(spec).init_cache(B, L, jnp.float32)
    assert (cache.kept.k.shape, cache.kept.v.size) == ((B, 1, 6 + 2, L), 0)
    assert spec.cost(D, L).cache == (6 + 2) * L
    assert SPECS["query latent, window"].cost(D, L).cache == (5 + 4) * 4


@pytest.mark.parametrize("name", SPECS)
def test_the_pattern_is_what_is_read(name: str) -> None:
    layer, spec = layer_of(SPECS[name]), SPECS[name]
    pattern = np.asarray(layer.pattern(X, AT, jnp.ones_like(AT)))
    np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-5)
    assert ((pattern > 0) == visible(spec.mask, np.ones(L, int))).all()
    values = np.asarray(layer.value(layer.latent_norm(layer.latent(X))))
    read = np.einsum("BHLS,BSHV->BLHV", pattern, values)
    np.testing.assert_allclose(layer.out(jnp.asarray(read)), layer(X, AT, jnp.ones_like(AT))[0], atol=1e-4)


def test_misfits_are_refused() -> None:
    with pytest.raises(ConfigError, match="MLA: q_rank=0 must be at least 1"):
        MLA(heads=1, kv_rank=1, q_rank=0, nope_width=1, rope_width=2, value_width=1)
    with pytest.raises(ConfigError, match="even part of the head's width"):
        MLA(heads=1, kv_rank=1, nope_width=1, rope_width=3, value_width=1).cost(8, 1)
