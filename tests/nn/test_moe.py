"""Mixture of experts: every way to reach the experts gives the definition, and routers do what their papers say."""

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
    Aux,
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
    SequenceBalance,
    SigmoidGated,
    SigmoidTopK,
    SoftmaxTopK,
    param,
    switch,
)
from lm.nn.dispatch import Dispatch
from lm.nn.feedforward import FeedForward
from lm.nn.kernels.platform import plain_forms
from lm.nn.moe import MoELayer
from lm.nn.routing import Choices, Routed, Routing
from tests.sharding.helper import assert_sharded_equals_single
from tests.tiny import LAYERS, MODELS, VOCAB

ROWS, LENGTH, WIDTH, EXPERTS = 3, 20, 12, 6
PLAIN, GATED = MLP(hidden=10, bias=True), GatedMLP(hidden=7)
ROUTINGS: dict[str, Routing] = {
    "top-2": SoftmaxTopK(k=2),
    "top-3, not normalised": SoftmaxTopK(k=3, normalized=False, bias=True),
    "switch": switch(),
    "sigmoid": SigmoidTopK(k=2, scale=1.5, limit=GroupLimit(groups=3, chosen=2)),
    "expert choice": ExpertChoice(factor=1.8),
    "hash": Hash(),
}


def layer(spec: FeedForward, seed: int = 0, std: float = 0.6, width: int = WIDTH) -> Any:
    """The layer with all parameters drawn wide."""
    graph, shapes = param.split(nnx.eval_shape(lambda: spec.build(width, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(seed)
    return param.merge(graph, jax.tree.map(lambda s: jnp.asarray(std * rng.normal(size=s.shape), jnp.float32), shapes))


def tokens(rows: int = ROWS, length: int = LENGTH, seed: int = 1, width: int = WIDTH) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, length, width)), jnp.float32)


DROPLESS = Dropless()


def moe(routing: Routing, dispatch: Dispatch = DROPLESS, expert: GatedMLP | MLP = GATED, **more: Any) -> MoE:
    return MoE(**{"expert": expert, "experts": EXPERTS, "routing": routing, "dispatch": dispatch, "losses": (), **more})


def outcome(spec: MoE, x: jax.Array, seed: int = 0) -> tuple[jax.Array, Any]:
    """Output, and gradients of parameters and input, of a scalar that weighs every output differently."""
    graph, params = param.split(layer(spec, seed))
    weigh = jnp.asarray(np.random.default_rng(9).normal(size=x.shape), jnp.float32)

    def scalar(params: param.Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, aux = param.merge(graph, params)(x)  # type: ignore[operator]
        return jnp.sum(weigh * y) + aux.loss, y

    grads, y = jax.jit(jax.grad(scalar, (0, 1), has_aux=True))(params, x)
    return y, grads


def same(found: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """Equal but for rounding, each array on the scale of its largest element."""

    def one(path: Any, a: jax.Array, b: jax.Array) -> None:
        scale = float(jnp.max(jnp.abs(b)))
        np.testing.assert_allclose(a, b, atol=tolerance * max(scale, 1e-3), err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(one, found, expected)


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
    same(gated(x)[0], jax.nn.sigmoid(x @ gated.score.weight[...])[..., None] * gated.ff(x)[0])


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
