"""Routers and their losses do what their papers say."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError
from lm.nn import (
    Aux,
    ExpertChoice,
    GroupLimit,
    Hash,
    LoadBalance,
    LossFree,
    RouterZ,
    SequenceBalance,
    SigmoidTopK,
    SoftmaxTopK,
    param,
)
from tests.nn.experts import EXPERTS, LENGTH, ROWS, WIDTH, layer, moe, tokens

# ---- routers -------------------------------------------------------------------------------------------------------


def test_a_router_computes_in_float32() -> None:
    """Logits that bfloat16 would confuse."""
    module = layer(moe(SoftmaxTopK(k=2)))
    x = tokens().astype(jnp.bfloat16)
    module.router.score.weight[...] = module.router.score.weight[...].astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64) @ np.asarray(module.router.score.weight[...], np.float64)
    np.testing.assert_allclose(module.router(x).logits, exact, atol=1e-5)
    y, aux = module(x)
    assert y.dtype == jnp.bfloat16
    assert all(value.dtype == jnp.float32 for value in (aux.loss, *aux.metrics.values()))


def test_groups_bound_the_choice() -> None:
    module = layer(moe(SigmoidTopK(k=2, limit=GroupLimit(groups=3, chosen=1))))
    chosen = np.asarray(module.router(tokens()).by.expert) // 2
    assert (chosen[..., 0] == chosen[..., 1]).all() and len(np.unique(chosen)) == 3


def test_expert_choice_fills_every_expert_and_sees_the_future() -> None:
    """Which is what its docstring warns of."""
    module, x = layer(moe(ExpertChoice(factor=1.8))), tokens()
    routed = module.router(x)
    assert routed.by.token.shape == (ROWS, EXPERTS, 6)
    assert all(len(set(row)) == 6 for row in np.asarray(routed.by.token).reshape(-1, 6).tolist())
    y, aux = module(x)
    np.testing.assert_allclose(aux.metrics["moe/max_load"], 1, rtol=1e-6)
    changed = x.at[:, LENGTH // 2 :].set(tokens(seed=7)[:, LENGTH // 2 :])
    assert np.abs(module(changed)[0][:, : LENGTH // 2] - y[:, : LENGTH // 2]).max() > 0.1
    other_row = x.at[1].set(tokens(seed=7)[1])
    np.testing.assert_array_equal(module(other_row)[0][0], y[0])


def test_expert_choice_refuses_to_decode_token_by_token() -> None:
    with pytest.raises(ConfigError, match="isn't causal, so it can't decode token by token"):
        layer(moe(ExpertChoice(factor=1.8)))(tokens(length=1))


def test_a_hash_is_fixed_spread_and_free() -> None:
    module, x = layer(moe(Hash(seed=3))), tokens(rows=40)
    assert set(param.axes(module)) == {"experts"}
    expert = np.asarray(module.router(x).by.expert)
    np.testing.assert_array_equal(expert, layer(moe(Hash(seed=3)), seed=8).router(2 * x).by.expert)
    assert np.mean(expert == np.asarray(layer(moe(Hash(seed=4))).router(x).by.expert)) < 0.4
    assert np.bincount(expert.ravel(), minlength=EXPERTS).min() * EXPERTS / expert.size > 0.8
    assert layer(moe(Hash(), experts=40)).router(x).by.expert.max() == 39  # more than there are dimensions


# ---- losses ---------------------------------------------------------------------------------------------------------


def test_balance_is_one_where_all_is_even_and_more_where_it_isnt() -> None:
    """By its formula, on a router's own numbers."""
    spec = moe(SoftmaxTopK(k=2), losses=(LoadBalance(weight=0.5), SequenceBalance(weight=0.25), RouterZ(weight=0.125)))
    module, x = layer(spec), tokens()
    _, aux = module(x)
    routed = module.router(x)
    probs, logits = np.asarray(routed.probs, np.float64), np.asarray(routed.logits, np.float64)
    counts = np.stack([np.bincount(row.ravel(), minlength=EXPERTS) for row in np.asarray(routed.by.expert)])
    balance = EXPERTS * np.sum(counts.sum(0) / counts.sum() * probs.mean((0, 1)))
    rows = EXPERTS * np.mean(np.sum(counts / (2 * LENGTH) * probs.mean(1), axis=-1))
    z = np.mean(np.log(np.exp(logits).sum(-1)) ** 2)
    expected = {
        "moe/balance": balance,
        "moe/sequence_balance": rows,
        "moe/z": z,
        "moe/max_load": counts.sum(0).max() / counts.sum(0).mean(),
        "moe/entropy": -np.mean(np.sum(probs * np.log(probs), -1)),
    }
    assert set(aux.metrics) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(aux.metrics[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(aux.loss, 0.5 * balance + 0.25 * rows + 0.125 * z, rtol=1e-5)
    module.router.score.weight[...] = jnp.zeros((WIDTH, EXPERTS))
    np.testing.assert_allclose(module(x)[1].metrics["moe/balance"], 1, rtol=1e-6)
    assert balance > 1.001


def skewed(losses: tuple[Any, ...]) -> tuple[Any, param.Params, jax.Array]:
    """A sigmoid router that prefers two experts by far."""
    module = layer(moe(SigmoidTopK(k=2), losses=losses))
    x = tokens(rows=16).at[..., 0].set(2.0)
    module.router.score.weight[...] = module.router.score.weight[...].at[0, :2].set(1.5)
    module.router.correction[...] = jnp.zeros(EXPERTS)
    return *param.split(module), x


def test_loss_free_bias_gets_the_sign_of_its_load_and_nothing_else_gets_anything() -> None:
    graph, params, x = skewed((LossFree(weight=1.0),))

    def aux(params: param.Params) -> Aux:
        return param.merge(graph, params)(x)[1]  # type: ignore[operator]

    loss, grads = jax.value_and_grad(lambda p: aux(p).loss)(params)
    assert loss == 0
    expert = np.asarray(param.merge(graph, params).router(x).by.expert)  # type: ignore[attr-defined]
    load = np.bincount(expert.ravel(), minlength=EXPERTS)
    np.testing.assert_array_equal(grads["router"].pop("correction"), np.sign(load - load.mean()))
    assert all((g == 0).all() for g in jax.tree.leaves(grads))
    through = jax.grad(lambda p: param.merge(graph, p)(x)[0].sum())(params)  # type: ignore[operator]
    assert (through["router"]["correction"] == 0).all() and (through["router"]["score"]["weight"] != 0).any()


def test_loss_free_bias_balances_a_skewed_router() -> None:
    """By SGD of rate u on nothing but its term: the paper's rule. The router itself stays as it is."""
    graph, params, x = skewed((LossFree(weight=1.0),))

    def loss(params: param.Params) -> tuple[jax.Array, jax.Array]:
        aux = param.merge(graph, params)(x)[1]  # type: ignore[operator]
        return aux.loss, aux.metrics["moe/max_load"]

    @jax.jit
    def step(params: param.Params, _: Any) -> tuple[param.Params, jax.Array]:
        grads, max_load = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.005 * g, params, grads), max_load

    _, found = jax.lax.scan(step, params, None, length=300)
    assert found[0] > 2 and found[-50:].max() < 1.15
