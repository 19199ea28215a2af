"""What every layer must hold: on a mesh of eight devices it is what it is on one."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from lm import sharding
from lm.config import lift
from lm.models import Decoder
from lm.sharding import Layout, ShardingRules
from lm.train import AdamW, Constant, Training
from lm.train.step import Program, State
from tests.tiny import made, packed

MESHES = {"ddp": "data=8", "fsdp": "fsdp=8", "fsdp_tp": "data=2,fsdp=2,tensor=2"}
TRAINING = Training(steps=1, optimizer=AdamW(b1=0.5), schedule=Constant(), clip=None)
ROWS = 8


def layout(name: str) -> Layout:
    return sharding.layout(MESHES[name], name) if name in MESHES else sharding.layout(name)


@functools.cache
def one_step(model: Decoder, where: str = "", training: Training = TRAINING) -> tuple[Program, State, dict[str, Any]]:
    """Program, state and metrics after one step. `where`: a name of MESHES, or a mesh."""
    shape, values = lift(training)
    program = Program(model, shape, layout(where))
    empty = jax.tree.map(lambda s: jax.device_put(np.zeros(s.shape, s.dtype), s.sharding), program.abstract_state())
    # as wide as initial weights, since wider ones would amplify rounding; drawn for each, since the step donates both
    drawn = {name: jax.device_put(made(model, std=0.2)[1], program.params_sharding) for name in _weights(training)}
    state = empty._replace(**drawn)
    state, metrics = program.step(state, program.layout.put(packed(rows=ROWS)), values)
    return program, state, jax.device_get(metrics)


def _weights(training: Training) -> tuple[str, ...]:
    return ("params", "ema") if training.ema else ("params",)


def gradients(state: State) -> Any:
    """Adam's first moment after one step from zero: the gradient times 1 - b1, in each parameter's own layout."""
    return state.opt[0].mu


def assert_sharded_equals_single(model: Decoder, where: str, training: Training = TRAINING) -> None:
    """Loss and every gradient are those of a single device to 1e-5, and lie where their parameters lie.

    A gradient's 1e-5 is relative to its largest element, or absolute where that is smaller than one.
    """
    _, single, expected = one_step(model, "", training)
    program, state, metrics = one_step(model, where, training)
    assert program.layout.mesh.size == 8
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)

    def same(path: Any, found: jax.Array, one: jax.Array, wanted: Any) -> None:
        name = jax.tree_util.keystr(path)
        size = float(np.abs(one).max())
        assert size > 0, f"{name} has no gradient"
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-5 * max(1.0, size), err_msg=name)
        assert found.sharding.is_equivalent_to(wanted, found.ndim), name

    jax.tree_util.tree_map_with_path(same, gradients(state), gradients(single), program.params_sharding)
    for tree in (state.params, state.opt[0].nu, *([state.ema] if training.ema else [])):
        jax.tree.map(lambda x, wanted: _assert_lies(x, wanted), tree, program.params_sharding)


def _assert_lies(x: jax.Array, wanted: Any) -> None:
    assert x.sharding.is_equivalent_to(wanted, x.ndim)


def share_of_one_device(tree: Any) -> float:
    """The part of all elements that the first device holds."""
    leaves = jax.tree.leaves(tree)
    return sum(x.addressable_shards[0].data.size for x in leaves) / sum(x.size for x in leaves)


def rules(**params: tuple[str, ...]) -> ShardingRules:
    return ShardingRules(params=params, activations={"batch": ("data", "fsdp")})
