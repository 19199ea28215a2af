"""Attention against its definition, and MHA, GQA and MQA against each other."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import ConfigError
from lm.nn import Attention, Mask, gqa, mha, mqa, param
from tests.masks import visible
from tests.tiny import packed

D, H, P = 8, 4, 2
BATCH = packed(rows=2, length=9)


def built(spec: Attention, seed: int = 0) -> tuple[Any, dict[str, Any]]:
    """The layer as a function of (params, x), and wide parameters."""
    graph, params = param.split(nnx.eval_shape(lambda: spec.build(D, rngs=nnx.Rngs(params=0))))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), params)
    positions, segments = jnp.asarray(BATCH["positions"]), jnp.asarray(BATCH["segments"])
    return jax.jit(lambda p, x: param.merge(graph, p)(x, positions, segments)[0]), params


X = jnp.asarray(np.random.default_rng(5).normal(size=(2, 9, D)), jnp.float32)
REAL = BATCH["segments"] > 0


def test_the_constructors_are_one_layer() -> None:
    assert gqa(H, H) == mha(H) and gqa(H, 1) == mqa(H)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_shared_heads_are_mha_with_repeated_weights(kv_heads: int) -> None:
    fields: dict[str, Any] = {"bias": True, "output_bias": True}
    shared, params = built(gqa(H, kv_heads, **fields))
    full, _ = built(mha(H, **fields))
    repeated = dict(params)
    for part in ("key", "value"):
        weight, bias = params[part]["weight"], params[part]["bias"]
        axis = {"weight": jnp.repeat(weight, H // kv_heads, axis=1), "bias": jnp.repeat(bias, H // kv_heads, axis=0)}
        repeated[part] = axis
    np.testing.assert_allclose(shared(params, X), full(repeated, X), atol=1e-4)
    shuffled = {**repeated, "key": {**repeated["key"], "weight": repeated["key"]["weight"][:, ::-1]}}
    assert np.abs(full(shuffled, X) - full(repeated, X)).max() > 0.1 or kv_heads == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mask": Mask(window=2)},
        {"scale": 0.1, "softcap": 2.0},
        {"mask": Mask(causal=False)},
        {"mask": Mask(window=2, sinks=1)},
        {"bias": True, "output_bias": True},
    ],
    ids=str,
)
def test_the_definition(fields: dict[str, Any]) -> None:
    spec = gqa(H, 2, position=None, **fields)
    layer, params = built(spec)
    weights = {k: np.asarray(v["weight"], np.float64) for k, v in params.items()}
    shift = {k: np.asarray(v["bias"], np.float64) if spec.bias else 0.0 for k, v in params.items()}
    q, k, v = (
        np.einsum("bld,dhp->blhp", np.asarray(X, np.float64), weights[n]) + shift[n] for n in ("query", "key", "value")
    )
    expected = np.zeros((2, 9, H, P))
    for b, h in np.ndindex(2, H):
        scores = q[b, :, h] @ k[b, :, h // 2].T * (spec.scale or P**-0.5)
        if spec.softcap:
            scores = spec.softcap * np.tanh(scores / spec.softcap)
        seen = visible(spec.mask, BATCH["segments"][b])
        p = np.where(seen, np.exp(scores), 0)
        expected[b, :, h] = p / p.sum(axis=1, keepdims=True) @ v[b, :, h // 2]
    y = np.einsum("blhp,hpd->bld", expected, weights["out"]) + shift["out"]
    np.testing.assert_allclose(np.asarray(layer(params, X))[REAL], y[REAL], atol=1e-4)


def test_misfits_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads=3 must divide width=8, or give head_width"):
        mha(3).cost(8, 1)
    with pytest.raises(ConfigError, match="head_width=0"):
        mha(4, head_width=0)
    with pytest.raises(ConfigError, match="can't decode from a cache"):
        mha(4, mask=Mask(causal=False)).build(8, rngs=nnx.Rngs(0)).init_cache(1, 4, jnp.float32)
    assert mha(3, head_width=4).cost(8, 1).params == 4 * 8 * 3 * 4
