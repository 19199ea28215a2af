"""A checkpoint of eight devices is read on other numbers of them, on other meshes, in part and in half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import lift
from lm.models import Decoder
from lm.nn import MLP, Block, gqa
from lm.sharding import layout
from lm.train import Training
from lm.train.checkpoint import Checkpoints
from lm.train.step import Program

MODEL = Decoder(vocab=64, width=16, layers=2, block=Block(mixer=gqa(4, kv_heads=2), ff=MLP(hidden=32)))
TRAINING, VALUES = lift(Training(steps=10, ema=0.9))


def program(mesh: str) -> Program:
    return Program(MODEL, TRAINING, layout(mesh))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder, and the arrays that are in it, as the host has them."""
    folder = tmp_path_factory.mktemp("eight")
    compiled = program("fsdp=4,tensor=2")
    state = compiled.init(3)
    rows = np.arange(8 * 16).reshape(8, 16) % 64
    ones = np.ones_like(rows)
    batch = {"tokens": rows, "targets": rows[:, ::-1].copy(), "positions": np.arange(16) * ones, "segments": ones}
    batch = {name: value.astype(np.int32) for name, value in batch.items()} | {"weights": ones.astype(np.float32)}
    state, _ = compiled.advance(state, [batch], VALUES)  # the optimizer's moments aren't 0
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state)
    return folder, jax.device_get(state)


@pytest.mark.parametrize("mesh", ["", "fsdp=2", "tensor=2", "fsdp=4", "data=2,tensor=2", "fsdp=2,tensor=4", "data=8"])
def test_the_same_bits_on_another_mesh(saved, mesh):
    folder, state = saved
    wanted = program(mesh).abstract_state()
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(wanted)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for one, same, as_ in zip(jax.tree.leaves(found), jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        assert one.sharding == as_.sharding
        assert np.asarray(one).dtype == same.dtype and np.array_equal(np.asarray(one), same)


def test_the_averaged_weights_alone_in_half_precision(saved):
    folder, state = saved
    ema = program("fsdp=2,tensor=2").abstract_state().ema
    half = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding), ema)
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(state._replace(step=None, params={}, opt={}, ema=half), partial=True, cast=True)
    for one, same, as_ in zip(
        jax.tree.leaves(found.ema), jax.tree.leaves(state.ema), jax.tree.leaves(half), strict=True
    ):
        assert one.sharding == as_.sharding
        assert np.array_equal(np.asarray(one), same.astype(jnp.bfloat16))
    assert len(jax.tree.leaves(found)) == len(jax.tree.leaves(state.ema))
