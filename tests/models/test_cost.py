"""The cost model against the built model's parameters and the program's matrix products: equal, not nearly."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import replace
from lm.models import Decoder, Execution
from lm.models.flops import program_flops
from lm.nn import Block, Mask, MoE, gqa, mha, param, swiglu
from lm.objectives import NextToken
from tests.tiny import BLOCKS, LENGTH, MODELS, mask_of, mixer_of, pair_flops

TABLE: dict[str, Decoder] = {
    **MODELS,
    "untied": replace(MODELS["mha"], {"tied": False}),
    "no norm": replace(MODELS["mha"], {"norm": None}),
    "all learned": replace(MODELS["learned"], {"block": BLOCKS["biases"]}),
    "long pattern": replace(MODELS["mha"], {"layers": 7, "block": tuple(BLOCKS.values())[:5]}),
}


def abstract(model: Decoder) -> tuple[Any, Any]:
    return param.split(nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0))))


def idle(model: Decoder, layer: int) -> int:
    """Parameters of the experts that a token doesn't meet."""
    ff = model.pattern[layer % len(model.pattern)].ff
    if not isinstance(ff, MoE):
        return 0
    return round((ff.experts - ff.routing.per_token()) * ff.expert.cost(model.width, 1).params)


@pytest.mark.parametrize("name", TABLE)
def test_parameters_are_those_of_the_built_model(name: str) -> None:
    model = TABLE[name]
    _, params = abstract(model)
    cost = model.cost(LENGTH)
    assert cost.params == sum(p.size for p in jax.tree.leaves(params))
    assert cost.active == cost.params - sum(idle(model, layer) for layer in range(model.layers))
    tables = [params["embedding"], params.get("unembedding"), params.get("position", {}).get("table")]
    assert cost.embedding == sum(t.size for t in tables if t is not None)
    assert cost.non_embedding == cost.params - cost.embedding


@pytest.mark.parametrize("name", TABLE)
def test_flops_are_the_programs_without_masked_pairs(name: str) -> None:
    model = TABLE[name]
    graph, params = abstract(model)
    masked = 0
    for layer in range(model.layers):
        mixer = mixer_of(model, layer)
        masked += (LENGTH**2 - mask_of(mixer).pairs(LENGTH)) * pair_flops(mixer, model.width)
    tokens = jax.ShapeDtypeStruct((1, LENGTH), jnp.int32)
    for layers in ("scan", "unroll"):
        execution = Execution(layers=layers)
        found = program_flops(lambda p, t, e=execution: param.merge(graph, p)(t, execution=e), params, tokens)
        assert model.cost(LENGTH).flops == found - masked


def test_without_a_causal_mask_nothing_is_masked() -> None:
    model = replace(MODELS["mha"], {"block.mixer.mask.causal": False})
    graph, params = abstract(model)
    found = program_flops(lambda p, t: param.merge(graph, p)(t), params, jax.ShapeDtypeStruct((1, LENGTH), jnp.int32))
    assert model.cost(LENGTH).flops == found > MODELS["mha"].cost(LENGTH).flops


@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_training_is_three_times_forward(layers: Any) -> None:
    model = Decoder(
        vocab=32,
        width=32,
        layers=3,
        block=Block(mixer=mha(4, head_width=2, mask=Mask(causal=False)), ff=swiglu(512)),
        tied=False,
    )
    graph, params = abstract(model)
    tokens = jax.ShapeDtypeStruct((2, 8), jnp.int32)
    batch = {**dict.fromkeys(("tokens", "targets", "positions", "segments"), tokens)}
    batch["weights"] = jax.ShapeDtypeStruct((2, 8), jnp.float32)

    def loss(remat: Any, params: Any, batch: Any) -> jax.Array:
        return NextToken()(param.merge(graph, params), batch, Execution(layers=layers, remat=remat)).loss

    def found(remat: str) -> int:
        return program_flops(jax.grad(lambda p, b: loss(remat, p, b)), params, batch)

    expected = 2 * model.cost(8).train_flops
    assert expected <= found("none") <= 1.01 * expected
    again = (expected - 2 * 3 * 2 * 8 * 32 * 32) / 3  # of a layer all but its last product, which nothing needs
    assert expected + 0.6 * again <= found("full") <= expected + again
    assert found("dots") <= 1.01 * expected


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("length", [2, LENGTH])
def test_cached_numbers_are_those_that_decoding_keeps(name: str, length: int) -> None:
    """Positions, segments and counters aside, which are the same few for every model."""
    model = TABLE[name]
    cache = jax.eval_shape(lambda: param.merge(*abstract(model)).init_cache(1, length))
    kept = [array for array in jax.tree.leaves(cache) if jnp.issubdtype(array.dtype, jnp.floating)]
    assert model.cost(length).cache == sum(array.size for array in kept)
    assert model.cost(length).cache_bytes() == 2 * model.cost(length).cache


def test_sharing_keys_costs_what_it_should() -> None:
    full, shared = (Block(mixer=gqa(8, kv)).cost(64, 100) for kv in (8, 2))
    assert full.cache == 4 * shared.cache == 2 * 100 * 64
    assert full.params - shared.params == 2 * 64 * 6 * 8
    assert Block(mixer=gqa(8, 8, mask=Mask(window=10))).cost(64, 100).cache == 2 * 10 * 64


class TestProgramFlops:
    a, b = np.zeros((2, 3, 4)), np.zeros((2, 4, 5))

    def test_products_batches_and_nesting(self) -> None:
        one = 2 * 2 * 3 * 4 * 5
        assert program_flops(jnp.matmul, self.a, self.b) == one
        assert program_flops(jax.jit(jax.checkpoint(jnp.matmul)), self.a, self.b) == one
        assert program_flops(jax.vmap(jnp.matmul), self.a, self.b) == one

    def test_a_scan_counts_every_round(self) -> None:
        def rounds(x: Any) -> Any:
            return jax.lax.scan(lambda c, _: (c @ jnp.ones((4, 4)), None), x, None, length=7)[0]

        assert program_flops(rounds, jnp.ones((3, 4))) == 7 * 2 * 3 * 4 * 4

    def test_what_is_not_known_is_refused(self) -> None:
        def unknown(x: Any) -> Any:
            return jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ jnp.ones((4, 4)), x)

        with pytest.raises(ValueError, match="while loop"):
            program_flops(unknown, jnp.ones((3, 4)))

    def test_the_dearest_branch_counts(self) -> None:
        def branch(x: Any) -> Any:
            return jax.lax.cond(x[0, 0] > 0, lambda y: y @ jnp.ones((4, 4)), lambda y: y, x)

        assert program_flops(branch, jnp.ones((3, 4))) == 2 * 3 * 4 * 4
