"""Mixtures of experts against transformers' blocks: outputs and gradients of the input, on weights drawn wide."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.nn import (
    GELU,
    MLP,
    Capacity,
    GatedMLP,
    GroupLimit,
    LoadBalance,
    MoE,
    ReLU,
    SigmoidGated,
    SigmoidTopK,
    SoftmaxTopK,
    param,
    switch,
)

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

WIDTH, HIDDEN, EXPERTS, ROWS, LENGTH = 16, 12, 8, 3, 10
X = np.random.default_rng(1).standard_normal((ROWS, LENGTH, WIDTH)).astype(np.float32)
COTANGENT = np.random.default_rng(2).standard_normal(X.shape).astype(np.float32)
State = dict[str, np.ndarray]


def drawn(module: Any) -> State:
    """Its weights and buffers, redrawn wide, as they are now."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.copy_(torch.tensor(0.4 * rng.standard_normal(tensor.shape), dtype=tensor.dtype))
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


def dense(prefix: str, state: State) -> dict[str, Any]:
    return {name: {"weight": state[f"{prefix}.{name}_proj.weight"].T} for name in ("gate", "up", "down")}


def gated_experts(state: State, prefix: str = "experts") -> dict[str, Any]:
    gate, up = np.split(state[f"{prefix}.gate_up_proj"].swapaxes(1, 2), 2, axis=-1)
    down = state[f"{prefix}.down_proj"].swapaxes(1, 2)
    return {"gate": {"weight": gate}, "up": {"weight": up}, "down": {"weight": down}}


def router(state: State, name: str = "gate") -> dict[str, Any]:
    return {"score": {"weight": state[f"{name}.weight"].T}}


def agree(block: Any, spec: MoE, params: dict[str, Any]) -> None:
    """Output and input gradient, within 1e-5 of their largest element."""
    x = torch.tensor(X, requires_grad=True)
    expected = block.train()(x)
    expected.backward(torch.tensor(COTANGENT))
    graph, shapes = param.split(nnx.eval_shape(lambda: spec.build(WIDTH, rngs=nnx.Rngs(0))))
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda s: s.shape, shapes)
    params = jax.tree.map(jnp.asarray, params)
    y, pull = jax.vjp(lambda x: param.merge(graph, params)(x)[0], jnp.asarray(X))  # type: ignore[operator]
    for found, wanted in ((y, expected.detach()), (pull(jnp.asarray(COTANGENT))[0], x.grad)):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5 * wanted.abs().max().item())
    assert np.std(y) > 0.3


def spec_of(routing: Any, hidden: int = HIDDEN, **more: Any) -> MoE:
    return MoE(expert=GatedMLP(hidden=hidden), experts=EXPERTS, routing=routing, **more)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_mixtral(k: int) -> None:
    from transformers.models.mixtral import modeling_mixtral as theirs

    config = transformers.MixtralConfig(
        hidden_size=WIDTH, intermediate_size=HIDDEN, num_local_experts=EXPERTS, num_experts_per_tok=k
    )
    block = theirs.MixtralSparseMoeBlock(config)
    state = drawn(block)
    agree(block, spec_of(SoftmaxTopK(k=k)), {"router": router(state), "experts": gated_experts(state)})


@pytest.mark.parametrize("normalized", [False, True])
def test_qwen2_moe(normalized: bool) -> None:
    from transformers.models.qwen2_moe import modeling_qwen2_moe as theirs

    config = transformers.Qwen2MoeConfig(
        hidden_size=WIDTH,
        moe_intermediate_size=HIDDEN,
        shared_expert_intermediate_size=20,
        num_experts=EXPERTS,
        num_experts_per_tok=3,
        norm_topk_prob=normalized,
    )
    block = theirs.Qwen2MoeSparseMoeBlock(config)
    state = drawn(block)
    shared = {"score": {"weight": state["shared_expert_gate.weight"].T}, "ff": dense("shared_expert", state)}
    params = {"router": router(state), "experts": gated_experts(state), "shared": shared}
    spec = spec_of(SoftmaxTopK(k=3, normalized=normalized), shared=SigmoidGated(ff=GatedMLP(hidden=20)))
    agree(block, spec, params)


@pytest.mark.parametrize("normalized", [False, True])
def test_qwen3_moe(normalized: bool) -> None:
    from transformers.models.qwen3_moe import modeling_qwen3_moe as theirs

    config = transformers.Qwen3MoeConfig(
        hidden_size=WIDTH,
        moe_intermediate_size=HIDDEN,
        num_experts=EXPERTS,
        num_experts_per_tok=2,
        norm_topk_prob=normalized,
    )
    block = theirs.Qwen3MoeSparseMoeBlock(config)
    state = drawn(block)
    params = {"router": router(state), "experts": gated_experts(state)}
    agree(block, spec_of(SoftmaxTopK(k=2, normalized=normalized)), params)


def test_granite_moe_takes_the_softmax_after_the_choice() -> None:
    from transformers.models.granitemoe import modeling_granitemoe as theirs

    config = transformers.GraniteMoeConfig(
        hidden_size=WIDTH, intermediate_size=HIDDEN, num_local_experts=EXPERTS, num_experts_per_tok=3
    )
    block = theirs.GraniteMoeMoE(config)
    state = drawn(block)
    params = {"router": router(state, "router"), "experts": gated_experts(state)}
    agree(block, spec_of(SoftmaxTopK(k=3)), params)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize(("groups", "chosen"), [(1, 1), (4, 2), (2, 1)])
def test_deepseek_v3(normalized: bool, groups: int, chosen: int) -> None:
    """The correction of the choice is drawn too, as wide as the scores."""
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as theirs

    config = transformers.DeepseekV3Config(
        hidden_size=WIDTH,
        moe_intermediate_size=HIDDEN,
        n_routed_experts=EXPERTS,
        n_shared_experts=2,
        num_experts_per_tok=3,
        n_group=groups,
        topk_group=chosen,
        norm_topk_prob=normalized,
        routed_scaling_factor=2.5,
    )
    block = theirs.DeepseekV3MoE(config)
    state = drawn(block)
    params = {
        "router": {**router(state), "correction": state["gate.e_score_correction_bias"]},
        "experts": gated_experts(state),
        "shared": dense("shared_experts", state),
    }
    limit = None if groups == 1 else GroupLimit(groups=groups, chosen=chosen)
    routing = SigmoidTopK(k=3, normalized=normalized, scale=2.5, limit=limit)
    agree(block, spec_of(routing, shared=GatedMLP(hidden=2 * HIDDEN)), params)


@pytest.mark.parametrize(("activation", "theirs"), [(ReLU(), "relu"), (GELU(approximate=False), "gelu")])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("room", [1, 2, LENGTH])
def test_switch(activation: Any, theirs: str, bias: bool, room: int) -> None:
    """With room for all, and for one or two tokens of each row: the first that come."""
    from transformers.models.switch_transformers import modeling_switch_transformers as modeling

    config = transformers.SwitchTransformersConfig(
        d_model=WIDTH,
        d_ff=HIDDEN,
        num_experts=EXPERTS,
        expert_capacity=room,
        router_bias=bias,
        router_jitter_noise=0.0,
        dropout_rate=0.0,
    )
    config.dense_act_fn = theirs
    block = modeling.SwitchTransformersSparseMLP(config)
    state = drawn(block)
    each = range(EXPERTS)
    experts = {
        ours: {"weight": np.stack([state[f"experts.expert_{e}.{name}.weight"].T for e in each])}
        for ours, name in {"up": "wi", "down": "wo"}.items()
    }
    score = {"weight": state["router.classifier.weight"].T}
    if bias:
        score["bias"] = state["router.classifier.bias"]
    spec = MoE(
        expert=MLP(hidden=HIDDEN, activation=activation),
        experts=EXPERTS,
        routing=switch(bias=bias),
        dispatch=Capacity(factor=room * EXPERTS / LENGTH),
    )
    agree(block, spec, {"router": {"score": score}, "experts": experts})


@pytest.mark.parametrize("k", [1, 2, 5])
def test_load_balance_is_theirs_but_for_the_number_of_choices(k: int) -> None:
    """transformers adds the shares of the k choices up, we average them."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits = 2 * np.random.default_rng(0).standard_normal((ROWS, LENGTH, EXPERTS)).astype(np.float32)
    theirs = load_balancing_loss_func((torch.tensor(logits.reshape(-1, EXPERTS)),), EXPERTS, k)
    ours = LoadBalance(weight=0.5)(SoftmaxTopK(k=k).route(jnp.asarray(logits), None), EXPERTS)
    np.testing.assert_allclose(k * ours.metrics["moe/balance"], theirs.item(), rtol=1e-5)
    np.testing.assert_allclose(ours.loss, 0.5 * ours.metrics["moe/balance"], rtol=1e-6)
