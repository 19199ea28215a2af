"""Which tensors of a checkpoint make which parameter, checked whole before anything is read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from flax import nnx

from lm import sharding
from lm.hub.errors import HubError
from lm.hub.family import Family, Rule
from lm.models.model import Model
from lm.nn import param
from lm.sharding import Layout

Flat = dict[str, Any]  # dotted path -> leaf


@functools.lru_cache(maxsize=32)
def skeleton(spec: Model) -> Any:
    """The model, with the shape of each parameter in its place."""
    return nnx.eval_shape(lambda: spec.build(rngs=nnx.Rngs(params=0)))


def abstract(spec: Model) -> tuple[nnx.GraphDef, Flat]:
    """The model's graph, and the shape of each parameter."""
    graph, shapes = param.split(skeleton(spec))
    return graph, flattened(shapes)


def flattened(tree: Any) -> Flat:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def nested(flat: Flat) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def placed(spec: Model, layout: Layout | None, made: Callable[[str], np.ndarray]) -> dict[str, Any]:
    """The model's parameters, each made on the host and then placed: there is never more than one of them twice.

    layout: the mesh that they are split over; None: the first device.
    """
    _, shapes = abstract(spec)
    where = layout or sharding.layout()
    places = sharding.shardings(nested(shapes), param.axes(skeleton(spec)), where.rules, where.mesh)
    return nested({path: jax.device_put(made(path), place) for path, place in flattened(places).items()})


class Plan:
    """For each parameter, the rules that make it: one, or one a layer of its stack."""

    def __init__(self, family: Family, spec: Model, shapes: Flat):
        self.shapes = shapes
        self.rules = list(family.rules(spec))
        self.makers: dict[str, list[tuple[Rule, int]]] = {path: [] for path in shapes}
        for rule in self.rules:
            for place, path in enumerate(rule.ours):
                if path not in shapes:
                    raise AssertionError(f"{type(family).__name__}: {rule.theirs[0]} is for {path}, which isn't there")
                self.makers[path].append((rule, place))
        for path, makers in self.makers.items():
            rows = [rule.index for rule, _ in makers]
            if rows != [None] and sorted(r for r in rows if r is not None) != list(range(shapes[path].shape[0])):
                raise AssertionError(f"{type(family).__name__}: {path} {shapes[path].shape} is made of layers {rows}")

    def shape(self, path: str, rule: Rule) -> tuple[int, ...]:
        """Of what a rule makes: one layer's part of a stack."""
        whole = self.shapes[path].shape
        return whole if rule.index is None else whole[1:]

    def check(self, names: set[str], ignored: tuple[str, ...]) -> None:
        """Raises HubError for a tensor that is missing, or left over."""
        used = [name for rule in self.rules for name in rule.theirs]
        twice = {name for name in used if used.count(name) > 1} if len(set(used)) < len(used) else set()
        if twice:
            raise AssertionError(f"{min(twice)} is used twice")
        if missing := sorted(set(used) - names):
            raise HubError(f"the checkpoint lacks {_some(missing)}")
        left = sorted(name for name in names - set(used) if not name.endswith(ignored or ("\n",)))
        if left:
            raise HubError(f"the checkpoint has tensors that nothing of this model reads: {_some(left)}")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
