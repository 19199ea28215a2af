"""Layers of experts with weights drawn wide, and what is shared by their tests."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.nn import MLP, Dropless, GatedMLP, MoE, param
from lm.nn.dispatch import Dispatch
from lm.nn.feedforward import FeedForward
from lm.nn.routing import Routing

ROWS, LENGTH, WIDTH, EXPERTS = 3, 20, 12, 6
PLAIN, GATED = MLP(hidden=10, bias=True), GatedMLP(hidden=7)


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


def same(found: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """Equal but for rounding, each array on the scale of its largest element."""

    def one(path: Any, a: jax.Array, b: jax.Array) -> None:
        scale = float(jnp.max(jnp.abs(b)))
        np.testing.assert_allclose(a, b, atol=tolerance * max(scale, 1e-3), err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(one, found, expected)
