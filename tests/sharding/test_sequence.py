"""Rows split over devices: models whose attention reads in a ring or by Ulysses are what they are on one device."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm import sharding
from lm.models import Decoder, Encoder, EncoderDecoder
from lm.nn import MLA, ALiBi, Block, Differential, Learned, Mask, T5Bias, cross_attention, gqa, mha, mqa, param
from lm.sharding import ShardingError
from tests.sharding.helper import assert_sharded_equals_single
from tests.tiny import FF, HEADS, MODELS, made, packed

SIZES: dict[str, Any] = {"vocab": 24, "width": 16}
ROWS, LENGTH = 4, 16

# every mixer that may have its row split, and cross-attention
ENCODER = Encoder(
    **SIZES,
    layers=1,
    block=Block(mixer=mha(HEADS, position=T5Bias(bidirectional=True), mask=Mask(causal=False)), ff=FF),
)
MODEL = EncoderDecoder(
    encoder=ENCODER,
    decoder=Decoder(
        **SIZES,
        layers=4,
        position=Learned(length=LENGTH),
        block=(
            Block(mixer=mha(HEADS), ff=FF, cross=cross_attention(HEADS, 1)),
            Block(mixer=gqa(HEADS, 2, mask=Mask(window=5))),
            Block(mixer=mqa(HEADS, position=ALiBi())),
            Block(mixer=MLA(heads=HEADS, kv_rank=6, q_rank=5, nope_width=4, rope_width=2, value_width=3)),
        ),
    ),
)


def batch() -> dict[str, np.ndarray]:
    """Sources and targets of packed documents, which end inside of devices' parts of a row and between them."""
    source, target = packed(ROWS, LENGTH, seed=1), packed(ROWS, LENGTH, seed=2)
    source["segments"][0] = target["segments"][0] = np.repeat([1, 2], (4, 12))
    return {
        "tokens": source["tokens"] % SIZES["vocab"],
        "segments": source["segments"],
        "decoder_tokens": target["tokens"] % SIZES["vocab"],
        "decoder_segments": target["segments"],
        "targets": target["targets"] % SIZES["vocab"],
    }


@functools.cache
def loss_and_gradients(mesh: str = "", rules: str | None = None) -> tuple[Any, Any]:
    where = sharding.layout(mesh, rules)
    MODEL.check_split(where)
    graph, params = made(MODEL, std=0.2)  # type: ignore[arg-type]
    axes = param.axes(nnx.eval_shape(lambda: MODEL.build(rngs=nnx.Rngs(params=0))))
    lie = sharding.shardings(params, axes, where.rules, where.mesh)

    def loss(params: param.Params, batch: dict[str, jax.Array]) -> jax.Array:
        with sharding.use(where):
            targets, rest = batch["targets"], {name: x for name, x in batch.items() if name != "targets"}
            logits = param.merge(graph, params)(**rest)
            own = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
            return -jnp.sum(own * (batch["decoder_segments"] != 0)) / targets.size

    compiled = jax.jit(
        jax.value_and_grad(loss),
        in_shardings=(lie, where.batch()),
        out_shardings=(None, lie),
        compiler_options={"xla_backend_optimization_level": 0},  # compiles in half the time
    )
    return jax.device_get(compiled(params, where.put(batch())))


@pytest.mark.parametrize("rules", ["sp", "sp_ulysses"])
@pytest.mark.parametrize("mesh", ["sequence=4", "data=2,sequence=2,tensor=2"])
def test_every_attention_is_with_split_rows_what_it_is_on_one_device(mesh: str, rules: str) -> None:
    (loss, gradients), (expected, single) = loss_and_gradients(mesh, rules), loss_and_gradients()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)

    def same(path: Any, found: np.ndarray, one: np.ndarray) -> None:
        name, size = jax.tree_util.keystr(path), float(np.abs(one).max())
        assert size > 0, f"{name} has no gradient"
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-5 * min(1.0, size), err_msg=name)

    jax.tree_util.tree_map_with_path(same, gradients, single)


def test_a_training_step_with_split_rows() -> None:
    """Of all, with the loss: rows of 12 tokens of which a device has 6, so the ring is turned to a zigzag."""
    model = Decoder(vocab=40, width=16, layers=1, block=Block(mixer=Differential(heads=2, kv_heads=1)))
    assert_sharded_equals_single(model, "data=2,sequence=2,tensor=2")


@pytest.mark.parametrize("name", ["mamba-2", "mamba", "lstm", "gru", "retention", "gated delta net", "fixed window"])
def test_mixers_that_read_in_order_refuse(name: str) -> None:
    with pytest.raises(ShardingError, match="reads a row in order and can't split it 2 ways; leave sequence= out"):
        MODELS[name].check_split(sharding.layout("sequence=2"))


def test_ulysses_refuses_more_devices_than_heads() -> None:
    with pytest.raises(ShardingError, match="4 heads can't be split 8 ways over a row by Ulysses; use the ring"):
        MODELS["gqa"].check_split(sharding.layout("sequence=8", "sp_ulysses"))
    MODELS["gqa"].check_split(sharding.layout("sequence=8"))
