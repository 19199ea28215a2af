"""Mixture of experts: every way to reach the experts gives the definition, on one device and many."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import ConfigError, replace
from lm.models.flops import program_flops
from lm.nn import (
    MLP,
    Capacity,
    Dense,
    Dropless,
    ExpertChoice,
    FixedCapacity,
    GatedMLP,
    GroupLimit,
    Hash,
    LoadBalance,
    LossFree,
    MoE,
    RouterZ,
    SigmoidGated,
    SigmoidTopK,
    SoftmaxTopK,
    param,
    switch,
)
from lm.nn.dispatch import Dispatch
from lm.nn.kernels.platform import plain_forms
from lm.nn.moe import MoELayer
from lm.nn.routing import Choices, Routed, Routing
from tests.nn.experts import EXPERTS, GATED, LENGTH, PLAIN, ROWS, WIDTH, layer, moe, same, tokens
from tests.sharding.helper import assert_sharded_equals_single
from tests.tiny import LAYERS, MODELS, VOCAB

ROUTINGS: dict[str, Routing] = {
    "top-2": SoftmaxTopK(k=2),
    "top-3, not normalised": SoftmaxTopK(k=3, normalized=False, bias=True),
    "switch": switch(),
    "sigmoid": SigmoidTopK(k=2, scale=1.5, limit=GroupLimit(groups=3, chosen=2)),
    "expert choice": ExpertChoice(factor=1.8),
    "hash": Hash(),
}


def outcome(spec: MoE, x: jax.Array, seed: int = 0) -> tuple[jax.Array, Any]:
    """Output, and gradients of parameters and input, of a scalar that weighs every output differently."""
    graph, params = param.split(layer(spec, seed))
    weigh = jnp.asarray(np.random.default_rng(9).normal(size=x.shape), jnp.float32)

    def scalar(params: param.Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, aux = param.merge(graph, params)(x)  # type: ignore[operator]
        return jnp.sum(weigh * y) + aux.loss, y

    grads, y = jax.jit(jax.grad(scalar, (0, 1), has_aux=True))(params, x)
    return y, grads


# ---- ways to the experts -----------------------------------------------------------------------------------------


def by_hand(module: MoELayer, x: np.ndarray) -> np.ndarray:
    """Token by token, expert by expert."""
    routed, experts = module.router(jnp.asarray(x)), module.experts  # type: ignore[operator]
    weight = np.zeros((*x.shape[:2], module.spec.experts))
    if isinstance(routed.by, Choices):
        np.put_along_axis(weight, np.asarray(routed.by.expert), np.asarray(routed.by.weight), axis=-1)
    else:
        for b, e, c in np.ndindex(routed.by.token.shape):
            weight[b, int(routed.by.token[b, e, c]), e] = routed.by.weight[b, e, c]
    y = np.zeros(x.shape)
    for b, i, e in np.argwhere(weight):
        up = x[b, i] @ np.asarray(experts.up.weight[e]) + (
            0 if experts.up.bias is None else np.asarray(experts.up.bias[e])
        )
        if experts.gate is None:
            h = module.spec.expert.activation(jnp.asarray(up))
        else:
            h = module.spec.expert.activation(jnp.asarray(x[b, i] @ np.asarray(experts.gate.weight[e]))) * up
        down = np.asarray(h) @ np.asarray(experts.down.weight[e])
        y[b, i] += weight[b, i, e] * (down + (0 if experts.down.bias is None else np.asarray(experts.down.bias[e])))
    return y


@pytest.mark.parametrize("expert", [PLAIN, GATED], ids=["plain", "gated"])
@pytest.mark.parametrize("routing", ROUTINGS.values(), ids=ROUTINGS)
def test_every_dispatch_is_the_definition(routing: Routing, expert: GatedMLP | MLP) -> None:
    """Dropless by blocks and by the library, and capacity with room for all: output and every gradient."""
    x = tokens()
    expected = outcome(moe(routing, Dense(), expert), x)
    same(expected[0], by_hand(layer(moe(routing, Dense(), expert)), np.asarray(x)))
    same(outcome(moe(routing, Dropless(), expert), x), expected)
    with plain_forms():
        same(outcome(moe(routing, Dropless(), expert), x), expected)
    if not isinstance(routing, ExpertChoice):
        same(outcome(moe(routing, Capacity(factor=float(EXPERTS)), expert), x), expected)
        same(outcome(moe(routing, FixedCapacity(places=LENGTH), expert), x), expected)


@pytest.mark.parametrize("length", [1, 2, 7, 90, 400])
def test_no_length_is_special(length: int) -> None:
    """Blocks of one row and of many, groups that are empty, and a last block that begins before its own rows."""
    x = tokens(rows=1, length=length) + 1.0  # the offset makes some experts popular
    same(outcome(moe(SoftmaxTopK(k=2)), x), outcome(moe(SoftmaxTopK(k=2), Dense()), x))


def test_capacity_drops_the_latest_tokens_of_a_full_expert_and_nothing_else() -> None:
    spec = moe(SoftmaxTopK(k=2), Capacity(factor=0.6))
    module, x = layer(spec), tokens()
    y, aux = module(x)
    routed = module.router(x)
    room = 4  # 0.6 * 2 * 20 / 6
    weight, taken, dropped = np.asarray(routed.by.weight).copy(), np.zeros((ROWS, EXPERTS), int), 0
    for b, i, k in np.ndindex(weight.shape):
        expert = int(routed.by.expert[b, i, k])
        taken[b, expert] += 1
        if taken[b, expert] > room:
            weight[b, i, k], dropped = 0, dropped + 1
    assert 0.1 < dropped / weight.size < 0.9
    kept = Routed(Choices(routed.by.expert, jnp.asarray(weight)))
    same(y, Dense()(x, kept, module.experts, EXPERTS))
    np.testing.assert_allclose(aux.metrics["moe/dropped"], dropped / weight.size, rtol=1e-6)
    longer, _ = module(jnp.concatenate([x, tokens(seed=5)], axis=1))
    assert np.abs(longer[:, :LENGTH] - y).max() > 0.1  # the room grows with the row
    assert "moe/dropped" not in layer(moe(SoftmaxTopK(k=2)))(x)[1].metrics


def test_a_fixed_capacity_is_the_share_that_gives_as_many_places() -> None:
    """And doesn't grow with the row."""
    x = tokens()
    fixed, share = moe(SoftmaxTopK(k=2), FixedCapacity(places=4)), moe(SoftmaxTopK(k=2), Capacity(factor=0.6))
    same(outcome(fixed, x), outcome(share, x))
    longer, _ = layer(fixed)(jnp.concatenate([x, tokens(seed=5)], axis=1))
    same(longer[:, :LENGTH], layer(fixed)(x)[0])


def test_all_experts_of_one_weight_are_a_dense_mlp() -> None:
    """The experts' hidden units side by side."""
    module = layer(moe(SoftmaxTopK(k=EXPERTS), expert=GATED))
    module.router.score.weight[...] = jnp.zeros((WIDTH, EXPERTS))
    dense, experts = layer(replace(GATED, {"hidden": EXPERTS * GATED.hidden})), module.experts
    for name in ("gate", "up"):
        getattr(dense, name).weight[...] = jnp.concatenate(list(getattr(experts, name).weight[...]), axis=1)
    dense.down.weight[...] = jnp.concatenate(list(experts.down.weight[...]), axis=0) / EXPERTS
    same(module(tokens())[0], dense(tokens())[0])


@pytest.mark.parametrize("routing", [ROUTINGS["top-2"], SigmoidTopK(k=2), ROUTINGS["expert choice"]], ids=str)
def test_the_order_of_experts_means_nothing(routing: Routing) -> None:
    module, x = layer(moe(routing, expert=PLAIN)), tokens()
    before, _ = module(x)
    order = np.random.default_rng(0).permutation(EXPERTS)
    _, params = param.split(module)
    axes = param.axes(module)
    moved = jax.tree.map(lambda p, names: jnp.take(p, order, axis=names.index("expert")), params, axes)
    same(param.merge(param.split(module)[0], moved)(x)[0], before)  # type: ignore[operator]


def test_shared_experts_are_added() -> None:
    for shared in (PLAIN, SigmoidGated(ff=PLAIN)):
        module, x = layer(moe(SoftmaxTopK(k=2), shared=shared)), tokens()
        y, _ = module(x)
        more, _ = module.shared(x)
        module.shared = None
        same(y, module(x)[0] + more)
    gated = layer(SigmoidGated(ff=PLAIN))
    same(gated(x)[0], jax.nn.sigmoid(x @ gated.score.weight[...]) * gated.ff(x)[0])


# ---- cost, transformations, refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("dispatch", [Dropless(), Capacity(factor=1.5), Dense()], ids=str)
@pytest.mark.parametrize("length", [LENGTH, 300])
def test_flops_are_the_programs(dispatch: Dispatch, length: int) -> None:
    """By the library's grouped product, in which no block is partly empty."""
    spec = moe(SoftmaxTopK(k=2), dispatch, PLAIN, shared=SigmoidGated(ff=GATED))
    x, weights = jax.ShapeDtypeStruct((1, length, WIDTH), jnp.float32), param.split(layer(spec))

    def training(params: param.Params, x: jax.Array) -> jax.Array:
        return jnp.sum(param.merge(weights[0], params)(x)[0])  # type: ignore[operator]

    with plain_forms():
        assert program_flops(training, weights[1], x) == spec.cost(WIDTH, length).flops
        both = program_flops(jax.grad(training, (0, 1)), weights[1], x)
    assert both == spec.cost(WIDTH, length).train_flops
    blocks = program_flops(training, weights[1], x)
    assert spec.cost(WIDTH, length).flops <= blocks <= 1.5 * spec.cost(WIDTH, length).flops


def test_active_parameters_are_those_of_the_chosen() -> None:
    one, cost = GATED.cost(WIDTH, 1).params, moe(SoftmaxTopK(k=2), shared=PLAIN).cost(WIDTH, 5)
    assert cost.params - cost.active == (EXPERTS - 2) * one
    assert cost.active == 2 * one + WIDTH * EXPERTS + PLAIN.cost(WIDTH, 1).params


@pytest.mark.parametrize("plain", [False, True])
def test_runs_side_by_side_are_runs_alone(plain: bool) -> None:
    """vmap over parameters and tokens, gradients included, as a fleet of runs does it."""
    spec = moe(SoftmaxTopK(k=2), losses=(LoadBalance(), RouterZ()), expert=PLAIN)
    layers = [layer(spec, seed) for seed in range(3)]
    graph, xs = param.split(layers[0])[0], jnp.stack([tokens(seed=s) for s in range(3)])
    params = jax.tree.map(lambda *p: jnp.stack(p), *[param.split(each)[1] for each in layers])

    def gradient(params: param.Params, x: jax.Array) -> Any:
        def loss(params: param.Params, x: jax.Array) -> jax.Array:
            y, aux = param.merge(graph, params)(x)  # type: ignore[operator]
            return jnp.sum(jnp.sin(y)) + aux.loss

        return jax.grad(loss, (0, 1))(params, x)

    with plain_forms(plain):
        together = jax.jit(jax.vmap(gradient))(params, xs)
        for i in range(3):
            alone = jax.jit(gradient)(jax.tree.map(lambda p, i=i: p[i], params), xs[i])
            same(jax.tree.map(lambda g, i=i: g[i], together), alone)


@pytest.mark.parametrize("where", ["ddp", "fsdp", "fsdp_tp"])
@pytest.mark.parametrize("name", ["moe, sigmoid, shared", "moe, switch with room for all"])
def test_sharded_is_a_single_device(name: str, where: str) -> None:
    assert_sharded_equals_single(MODELS[name], where)


def test_losses_and_metrics_of_a_stack_reach_the_model() -> None:
    graph, params = param.split(MODELS["moe"].build(rngs=nnx.Rngs(0)))
    model: Any = param.merge(graph, params)
    aux = model.hidden(jnp.arange(24).reshape(2, 12) % VOCAB).aux
    metrics = {"moe/max_load", "moe/entropy", "moe/balance", "moe/z"}
    assert set(aux.metrics) == metrics
    expected = LAYERS * (0.01 * aux.metrics["moe/balance"] + 1e-3 * aux.metrics["moe/z"])
    np.testing.assert_allclose(aux.loss, expected, rtol=1e-5)


REFUSED: list[tuple[Any, str]] = [
    (lambda: moe(SoftmaxTopK(k=7)), "k=7 experts of 6"),
    (lambda: moe(SoftmaxTopK(k=0)), "k=0 experts of 6"),
    (lambda: MoE(expert=PLAIN, experts=0), "experts=0"),
    (lambda: moe(SigmoidTopK(k=2, limit=GroupLimit(groups=4, chosen=2))), "6 experts in groups=4"),
    (lambda: moe(SigmoidTopK(k=3, limit=GroupLimit(groups=3, chosen=1))), "raise chosen"),
    (lambda: GroupLimit(groups=2, chosen=3), "chosen=3 groups of 2"),
    (lambda: moe(ExpertChoice(factor=7.0)), "can't have more than all experts=6"),
    (lambda: ExpertChoice(factor=0.0), "must be positive"),
    (lambda: Capacity(factor=0.0), "must be positive"),
    (lambda: FixedCapacity(places=0), "must be at least 1"),
    (lambda: LoadBalance(weight=0.0), "leave a loss of weight 0 out"),
    (lambda: moe(ExpertChoice(), Capacity()), "ExpertChoice fills each expert exactly"),
    (lambda: moe(Hash(), losses=(LoadBalance(),)), "LoadBalance works on the router's load, which Hash doesn't have"),
    (lambda: moe(SoftmaxTopK(k=2), losses=(LossFree(),)), "LossFree works on the router's bias"),
]


@pytest.mark.parametrize(("build", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_has_no_meaning_is_refused(build: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build()
