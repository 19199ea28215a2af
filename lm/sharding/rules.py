"""From the logical axes of parameters and activations to the axes of the mesh."""

from __future__ import annotations

from typing import Any, Literal

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.config import ConfigError, config, replace, unknown
from lm.errors import UserError

# from the slowest network to the fastest; neighbours in the last axis are neighbours on the machine
MESH_AXES = ("replica", "stage", "data", "fsdp", "expert", "sequence", "tensor")
LOGICAL_AXES = ("batch", "length", "embed", "heads", "kv_heads", "head_dim", "mlp", "expert", "vocab", "layers")


class ShardingError(UserError):
    """A parameter that the mesh can't hold as the rules say."""


@config
class ShardingRules:
    """Which mesh axes a logical axis is split over; an axis that isn't named is kept whole.

    replicate_if_indivisible: axes that are kept whole where the mesh doesn't divide them (MQA has one key head,
    which every tensor shard needs). Any other indivisible axis is an error.
    sequence: how attention reads a row whose "length" is split: keys go round a ring (Liu et al. 2023), or rows and
    heads change places (Ulysses, Jacobs et al. 2023), which sends less but needs a head for each device of a row.
    """

    params: dict[str, tuple[str, ...]]
    activations: dict[str, tuple[str, ...]]
    replicate_if_indivisible: tuple[str, ...] = ("kv_heads",)
    sequence: Literal["ring", "ulysses"] = "ring"

    def __post_init__(self) -> None:
        for table in (self.params, self.activations):
            for name, axes in table.items():
                for axis in axes:
                    if axis not in MESH_AXES:
                        raise ConfigError(f"rule {name} -> {axis}: the mesh has the axes {', '.join(MESH_AXES)}")

    def check(self, axes: Any) -> None:
        """Raises ShardingError for a rule on an axis that nothing has: neither our words nor the parameters' `axes`."""
        known = {*LOGICAL_AXES, *jax.tree.leaves(axes)}
        for name in (*self.params, *self.activations, *self.replicate_if_indivisible):
            if name not in known:
                raise ShardingError(unknown(name, sorted(known), "a sharding rule names the axis"))

    def check_mesh(self, mesh: Mesh) -> None:
        """Raises ShardingError for an axis of the mesh over which nothing is split: its devices would do the same."""
        used = {axis for table in (self.params, self.activations) for axes in table.values() for axis in axes}
        for axis, size in mesh.shape.items():
            if size > 1 and axis not in used:
                raise ShardingError(f"mesh axis {axis}={size}: these rules split nothing over it; leave --rules out")

    def spec(
        self, axes: tuple[str, ...], shape: tuple[int, ...], mesh: Mesh, where: str = "parameter"
    ) -> PartitionSpec:
        """How a parameter is split. Two of its axes on one mesh axis, or a size that doesn't divide, are errors."""
        used: dict[str, str] = {}
        parts: list[tuple[str, ...] | None] = []
        for name, size in zip(axes, shape, strict=True):
            # an axis of size 1 has nothing to split: what all layers share, a score of one number
            over = tuple(axis for axis in self.params.get(name, ()) if mesh.shape[axis] > 1 and size > 1)
            ways = _ways(over, mesh)
            if over and size % ways:
                if name not in self.replicate_if_indivisible:
                    raise ShardingError(
                        f"{where}: axis '{name}' of size {size} can't be split {ways} ways over {'+'.join(over)}; "
                        f"make it a multiple of {ways} or the mesh smaller"
                    )
                over = ()
            for axis in over:
                if axis in used:
                    raise ShardingError(
                        f"{where}: axes '{used[axis]}' and '{name}' both map to mesh axis '{axis}'; change a rule"
                    )
                used[axis] = name
            parts.append(over or None)
        return PartitionSpec(*parts)


def _ways(axes: tuple[str, ...], mesh: Mesh) -> int:
    ways = 1
    for axis in axes:
        ways *= mesh.shape[axis]
    return ways


Axes = dict[str, tuple[str, ...]]  # of the mesh, by logical axis
_ROWS: tuple[str, ...] = ("replica", "data", "fsdp", "expert")
_BATCH: Axes = {"batch": _ROWS}
_FSDP: Axes = {"embed": ("fsdp",)}
_TENSOR: Axes = dict.fromkeys(("heads", "kv_heads", "mlp", "vocab"), ("tensor",))
_HEADS: Axes = dict.fromkeys(("heads", "kv_heads", "mlp", "vocab"), ("tensor",))  # of activations


def ddp() -> ShardingRules:
    """Data parallel: every device holds all parameters."""
    return ShardingRules(params={}, activations=_BATCH)


def fsdp() -> ShardingRules:
    """Parameters, gradients and optimizer state split over the devices (ZeRO-3, Rajbhandari et al. 2020)."""
    return ShardingRules(params=_FSDP, activations=_BATCH)


def fsdp_tp() -> ShardingRules:
    """Fully sharded, and heads, hidden units and vocabulary split over "tensor" (Shoeybi et al. 2019)."""
    return ShardingRules(params=_FSDP | _TENSOR, activations=_BATCH | _HEADS)


def ep() -> ShardingRules:
    """As `fsdp_tp`, and experts split over "expert", whose devices hold rows of their own (Lepikhin et al. 2020)."""
    return ShardingRules(params=_FSDP | _TENSOR | {"expert": ("expert",)}, activations=_BATCH | _HEADS)


def sp() -> ShardingRules:
    """As `fsdp_tp`, and the tokens of a row split over "sequence", read in a ring (Liu et al. 2023)."""
    return ShardingRules(params=_FSDP | _TENSOR, activations=_BATCH | _HEADS | {"length": ("sequence",)})


def sp_ulysses() -> ShardingRules:
    """As `sp`, but rows and heads change places to be read (Jacobs et al. 2023)."""
    return replace(sp(), {"sequence": "ulysses"})


def pp() -> ShardingRules:
    """As `fsdp_tp`, and layers split over "stage" (Huang et al. 2018, GPipe; Narayanan et al. 2021)."""
    return ShardingRules(params=_FSDP | _TENSOR | {"layers": ("stage",)}, activations=_BATCH | _HEADS)


def every() -> ShardingRules:
    """All of these; an axis of size 1 splits nothing, so the mesh alone says what is done."""
    rules = [ddp(), fsdp_tp(), ep(), sp(), pp()]
    params, activations = ({}, {})
    for one in rules:
        params, activations = params | one.params, activations | one.activations
    return ShardingRules(params=params, activations=activations)


PRESETS = {
    "ddp": ddp,
    "fsdp": fsdp,
    "fsdp_tp": fsdp_tp,
    "ep": ep,
    "sp": sp,
    "sp_ulysses": sp_ulysses,
    "pp": pp,
    "every": every,
}


def shardings(params: Any, axes: Any, rules: ShardingRules, mesh: Mesh) -> Any:
    """The NamedSharding of every parameter. `axes` is the tree of logical axes that `lm.nn.param.axes` gives."""

    def one(path: Any, leaf: Any, names: tuple[str, ...]) -> NamedSharding:
        where = jax.tree_util.keystr(path, simple=True, separator=".")
        return NamedSharding(mesh, rules.spec(names, leaf.shape, mesh, where))

    return jax.tree_util.tree_map_with_path(one, params, axes)
