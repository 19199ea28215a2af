"""One model in every layout of its program: scanned or unrolled, with or without rematerialisation, in bfloat16."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import sharding
from lm.config import ConfigError, replace
from lm.models import Decoder, Execution
from lm.models import execution as execution_module
from lm.models.execution import DISPATCH, LIBRARY
from lm.nn import param
from lm.nn.mask import positions_of
from lm.objectives import NextToken
from tests.tiny import BLOCKS, VOCAB, made, packed

# five layers of a pattern of two: two whole patterns and a rest
MODEL = Decoder(
    vocab=VOCAB, width=16, layers=5, block=(BLOCKS["gqa"], BLOCKS["alibi, window"]), tied=False, softcap=9.0
)
BATCH = {name: jnp.asarray(value) for name, value in packed().items()}


def program(execution: Execution) -> Any:
    """params -> (loss, gradients), compiled."""
    graph, _ = made(MODEL)

    def loss(params: param.Params) -> jax.Array:
        return NextToken()(param.merge(graph, execution.cast(graph, params)), BATCH, execution).loss

    return jax.jit(jax.value_and_grad(loss))


@cache
def result(execution: Execution) -> tuple[float, Any]:
    loss, grads = program(execution)(made(MODEL)[1])
    return float(loss), grads


PLAIN = Execution(layers="unroll")


@pytest.mark.parametrize(
    "execution",
    [
        Execution(layers="scan"),
        Execution(layers="scan", remat="full"),
        Execution(layers="unroll", remat="full"),
        Execution(layers="scan", remat="dots"),
        Execution(layers="scan", remat="offload"),
        Execution(layers="unroll", remat="offload"),
    ],
    ids=lambda e: f"{e.layers}-{e.remat}",
)
def test_the_numbers_are_those_of_the_plain_program(execution: Execution) -> None:
    (loss, grads), (plain_loss, plain_grads) = result(execution), result(PLAIN)
    assert loss == pytest.approx(plain_loss, rel=1e-5)

    def close(a: jax.Array, b: jax.Array) -> None:
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(np.abs(b).max()))

    jax.tree.map(close, grads, plain_grads)


def equations(jaxpr: Any) -> list[Any]:
    """All equations of a program, those inside others too."""
    found = []
    for equation in jaxpr.eqns:
        found.append(equation)
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    found += equations(inner)
    return found


def test_the_program_is_laid_out_as_asked() -> None:
    params = made(MODEL)[1]

    def kinds(**fields: Any) -> list[str]:
        found = equations(jax.make_jaxpr(program(Execution(**fields)))(params).jaxpr)
        return [
            f"{e.primitive.name}{e.params['length']}" if e.primitive.name == "scan" else e.primitive.name for e in found
        ]

    scanned, unrolled = kinds(layers="scan"), kinds(layers="unroll")
    assert scanned.count("scan2") == 2  # two whole patterns, forward and backward
    full = kinds(layers="scan", remat="full")
    assert full.count("remat2") > scanned.count("remat2") == unrolled.count("remat2")
    assert full.count("dot_general") > scanned.count("dot_general")
    dots = kinds(layers="scan", remat="dots")
    assert full.count("dot_general") > dots.count("dot_general")


def test_offloading_keeps_what_goes_into_layers_in_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    params = made(MODEL)[1]

    def kept(remat: Any) -> list[Any]:
        """The results of the forward loop over whole patterns that the backward pass reads: [2 ...]."""
        found = equations(jax.make_jaxpr(program(Execution(layers="scan", remat=remat)))(params).jaxpr)
        loop = next(e for e in found if e.primitive.name == "scan" and e.params["length"] == 2)
        return [v.aval for v in loop.outvars if v.aval.ndim == 4]

    stream = (2, *BATCH["tokens"].shape, 16)
    host, device = kept("offload"), kept("full")
    assert [x.shape for x in host] == [x.shape for x in device] == [stream, stream]
    assert all(x.memory_space == jax.memory.Space.Host for x in host)
    assert not any(x.memory_space == jax.memory.Space.Host for x in device)
    monkeypatch.setattr(execution_module, "HOST", "no such")
    with pytest.raises(ConfigError, match=r"remat='offload' needs .* cpu has none of; use remat='full'"):
        Execution(remat="offload").checkpoint(lambda x: x)
    monkeypatch.setattr(execution_module, "platform", lambda: "tpu")
    with sharding.use(sharding.layout("stage=2")), pytest.raises(ConfigError, match="in a pipeline for TPU"):
        Execution(remat="offload").checkpoint(lambda x: x)


@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_a_scan_is_a_loop_in_the_compiled_program_and_the_unrolled_form_is_none(layers: Any) -> None:
    graph, params = made(replace(MODEL, {"layers": 4}))

    def forward(params: param.Params) -> jax.Array:
        return param.merge(graph, params)(BATCH["tokens"], execution=Execution(layers=layers))

    text = jax.jit(forward).lower(params).as_text()
    assert ("stablehlo.while" in text) == (layers == "scan")


def test_auto_goes_by_depth() -> None:
    assert Execution().unrolls(4) and not Execution().unrolls(32)
    assert Execution(layers="unroll").unrolls(32) and not Execution(layers="scan").unrolls(4)


def test_the_pattern_is_the_blocks_one_after_another() -> None:
    graph, params = made(MODEL)
    model: Any = param.merge(graph, params)
    tokens, segments = BATCH["tokens"], BATCH["segments"]
    positions = positions_of(segments)

    @jax.jit
    def by_hand(params: param.Params) -> jax.Array:
        x = params["embedding"][tokens]
        for i in range(5):
            weights = jax.tree.map(lambda p, i=i: p[i // 2], params["blocks"][str(i % 2)])
            block = jax.eval_shape(lambda i=i: model.blocks[str(i % 2)])
            x, _, _ = param.merge(param.split(block)[0], weights)(x, positions, segments)
        h = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * params["norm"]["scale"]
        return 9.0 * jnp.tanh(h @ params["unembedding"].T / 9.0)

    np.testing.assert_allclose(model(tokens, segments=segments), by_hand(params), atol=2e-3)
    assert params["blocks"]["0"]["mixer"]["query"]["weight"].shape[0] == 3
    assert params["blocks"]["1"]["mixer"]["query"]["weight"].shape[0] == 2


def test_bfloat16_is_close_and_really_used() -> None:
    small = Execution(layers="scan", compute="bfloat16")
    (loss, grads), (plain_loss, plain_grads) = result(small), result(PLAIN)
    assert loss != plain_loss and loss == pytest.approx(plain_loss, rel=0.05)
    a, b = (jnp.concatenate([g.ravel() for g in jax.tree.leaves(tree)]) for tree in (grads, plain_grads))
    assert a.dtype == jnp.float32
    assert float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)) > 0.98
    found = equations(jax.make_jaxpr(program(small))(made(MODEL)[1]).jaxpr)
    inputs = [v.aval.dtype for e in found if e.primitive.name == "dot_general" for v in e.invars]
    assert sum(dtype == jnp.bfloat16 for dtype in inputs) > 0.8 * len(inputs)


def test_what_routes_and_what_decays_stays_float32() -> None:
    names = ("mamba", "mamba-2", "gated delta net", "moe, sigmoid, shared", "moe, switch with room for all")
    graph, params = made(Decoder(vocab=VOCAB, width=16, layers=5, block=tuple(BLOCKS[name] for name in names)))
    cast = jax.tree_util.tree_leaves_with_path(Execution(compute="bfloat16").cast(graph, params))
    types = {jax.tree_util.keystr(path, simple=True, separator="."): p.dtype for path, p in cast}
    precise = {name for name, dtype in types.items() if dtype == jnp.float32}
    assert precise == {name for name in types if name.split(".")[-1] in ("A_log", "dt_bias") or ".router." in name}
    assert len(precise) == 3 * 2 + 2 + 2  # three mixers; weight and correction; weight and bias
    assert {types[name] for name in types.keys() - precise} == {jnp.dtype("bfloat16")}
    same = Execution().cast(graph, params)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(same))


@pytest.mark.parametrize(
    "changes",
    [{}, {"tied": True}, {"embed_scale": None}, {"embed_scale": 3.0}, {"softcap": None}, {"logit_scale": 0.3}],
)
def test_what_a_decoder_does_before_and_after_its_layers(changes: dict[str, Any]) -> None:
    spec = replace(MODEL, {"layers": 2, **changes})
    graph, params = made(spec)
    tokens = BATCH["tokens"]
    model: Any = param.merge(graph, params)
    scale = {None: 4.0}.get(spec.embed_scale, spec.embed_scale)
    head = params["embedding"] if spec.tied else params["unembedding"]
    same = param.merge(*made(replace(spec, {"embed_scale": 1.0, "logit_scale": 1.0})))
    same.embedding[...] = params["embedding"] * scale
    h = same.hidden(tokens, None, None, None, Execution(layers="scan")).h
    logits = spec.logit_scale * (h @ head.T)
    expected = logits if spec.softcap is None else spec.softcap * np.tanh(logits / spec.softcap)
    found = model(tokens, execution=Execution(layers="scan"))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found.dtype == jnp.float32


def test_a_dispatch_has_a_bounded_number_of_steps_and_of_flops() -> None:
    choose, budget = Execution().at_once, DISPATCH["cpu"]
    assert [choose(flops) for flops in (1.0, budget / 16, budget / 3, budget, 1e15)] == [16, 16, 3, 1, 1]
    assert Execution(steps_at_once=5).at_once(1e15) == 5


def test_the_compilers_options_give_way_to_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Execution().compiler_options() == {LIBRARY: "LIBRARY_FUSION_TYPE_DOT"}
    assert Execution(kernels="plain").compiler_options() is None
    monkeypatch.setenv("XLA_FLAGS", f"--{LIBRARY}=LIBRARY_FUSION_TYPE_REDUCE")
    assert Execution().compiler_options() is None
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert Execution().compiler_options() is None
