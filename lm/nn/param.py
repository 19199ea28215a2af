"""Parameters: one declaration gives the shape, the logical axes and the initial values.

What crosses `jax.jit` is a nested dict of arrays (`split`), merged with the module's graph inside (`merge`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

Params = dict[str, Any]  # nested dict of arrays
Axes = tuple[str, ...]
M = TypeVar("M", bound=nnx.Module)
Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]

zeros: Initializer = jax.nn.initializers.zeros
ones: Initializer = jax.nn.initializers.ones


def normal(std: float) -> Initializer:
    """Normal values of the given standard deviation, cut at two of them (std is that after the cut)."""
    return jax.nn.initializers.truncated_normal(std / 0.8796256610342398)


def param(
    rngs: nnx.Rngs,
    shape: tuple[int, ...],
    axes: Axes,
    init: Initializer,
    *,
    shared: bool = False,
    precise: bool = False,
) -> nnx.Param:
    """Declares a float32 parameter. `axes` names each dimension in the words of the design's table.

    shared: a stack of layers has it once. precise: it is float32 for the layers too, whatever the computation's type,
    because they decide or multiply up by it.
    """
    if len(shape) != len(axes):
        raise ValueError(f"a parameter of shape {shape} needs {len(shape)} axis names, got {axes}")
    return nnx.Param(init(rngs.params(), shape, jnp.float32), axes=axes, shared=shared, precise=precise)


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Params]:
    """A module as its static graph and a nested dict of its arrays."""
    graph, state = nnx.split(module)
    return graph, nnx.to_pure_dict(state)


def merge(graph: nnx.GraphDef[M], params: Params) -> M:
    """The module of a graph and arrays (or tracers); free inside a compiled function."""
    return nnx.merge(graph, nnx.State(params))


def axes(module: nnx.Module) -> Params:
    """The logical axes of every parameter, as a nested dict like that of `split`."""
    return _declared(module, "axes")


def precise(graph: nnx.GraphDef, params: Params) -> Params:
    """Which parameters are declared precise, as a nested dict like `params`."""
    return _declared(merge(graph, params), "precise")


def _declared(module: nnx.Module, about: str) -> Params:
    state = nnx.state(module, nnx.Param)
    return nnx.to_pure_dict(
        jax.tree.map(lambda p: p.get_metadata()[about], state, is_leaf=lambda x: isinstance(x, nnx.Param))
    )


def stacked(build: Callable[[nnx.Rngs], M], count: int, rngs: nnx.Rngs) -> M:
    """`count` equal modules as one: every array has a leading axis "layers", of size 1 where it is shared."""
    keys = jax.random.split(rngs.params(), count)
    module = jax.vmap(lambda key: build(nnx.Rngs(params=key)))(keys)
    for _, variable in nnx.iter_graph(module):
        if isinstance(variable, nnx.Param):
            about = variable.get_metadata()
            variable.set_metadata(axes=("layers", *about["axes"]))
            if about["shared"]:
                variable.set_value(variable[...][:1])
    return module


def layer(module: M, index: int) -> M:
    """One module of a stack."""
    return jax.tree.map(lambda x: x[min(index, len(x) - 1)], module)
