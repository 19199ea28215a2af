"""Experts on a mesh: every device sends its own tokens' choices to the devices that hold the experts, and gets them
back (Lepikhin et al. 2020, GShard; Gale et al. 2022, MegaBlocks, for the form that drops nothing).

The experts' part of a layer is one `jax.shard_map` over all axes of the mesh, because only so does a device sort the
tokens that it has; left to the compiler, every device would gather and sort all of them. So is the choice of experts,
for the same reason. The router's losses and metrics are outside: they are of the whole batch, as on one device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec

from lm import sharding
from lm.nn import param
from lm.nn.dispatch import Equal, Experts, Rows, Sorted, permuted
from lm.nn.kernels.platform import fast
from lm.nn.routing import Routed
from lm.shapes import Array, Float, Int
from lm.sharding import Layout, ShardingError

Over = tuple[str, ...]  # axes of the mesh
Compute = Callable[[jax.Array, Any, Experts], tuple[jax.Array, Routed]]  # of tokens, by a router and experts
Way = Callable[[jax.Array], jax.Array]  # of rows to other devices


def check_split(where: Layout) -> None:
    """Raises ShardingError for experts split over devices that hold the same rows."""
    for axis in where.rules.params.get("expert", ()):
        if where.mesh.shape[axis] > 1 and axis not in where.over("batch"):
            raise ShardingError(
                f"experts are split over mesh axis '{axis}' and a batch's rows aren't, so all of its devices would "
                f"compute the same; add '{axis}' to the rules' activations of 'batch'"
            )


def by_device(
    compute: Compute, x: Float[Array, "B L D"], router: Any, experts: Any, whole_rows: bool
) -> tuple[Float[Array, "B L D"], Routed]:
    """`compute(x, router, experts)` of these two modules; on a mesh by each device for its own tokens.

    Weights lie as the rules say: experts' [E over "expert", D over "fsdp", F over "tensor"]. Each device gathers D of
    its own experts, computes its part of F, and the parts are summed; and it gathers the router. Rows that the mesh
    doesn't divide are kept whole, as `sharding.constrain` does; their devices then do the same. whole_rows: so are a
    row's tokens.
    """
    if (where := sharding.in_scope()) is None:
        return compute(x, router, experts)
    choose, do = _Lying.of(router, where), _Lying.of(experts, where)
    rows = _divided(where, "batch", x.shape[0])
    length = () if whole_rows else _divided(where, "length", x.shape[1])
    owners, parts = do.over("expert"), tuple(axis for axis in do.over("mlp") if axis not in rows + length)

    def local(x: Array, router: list[Array], experts: list[Array]) -> tuple[Array, Routed]:
        mine = do.gathered(experts, {"expert": owners, "mlp": parts})
        y, routed = compute(x, choose.gathered(router, {}), _exchanged(mine, owners) if owners else mine)
        return y[None], routed

    tokens, whole = _spec(rows, length), PartitionSpec()
    split = jax.shard_map(
        local,
        mesh=where.mesh,
        in_specs=(tokens, choose.specs, do.specs),
        out_specs=(_spec(parts, rows, length), Routed(tokens, tokens, tokens, whole)),  # type: ignore[arg-type]
        check_vma=False,
    )
    y, routed = split(x, choose.weights, do.weights)
    # summed out here, since inside the transpose of the sum would be one more sum
    return sharding.constrain(jnp.sum(y, axis=0), "batch", "length", None), routed


class _Lying(NamedTuple):
    """A module's weights with their logical axes, and how they lie on the mesh."""

    graph: nnx.GraphDef
    tree: Any
    weights: list[Array]
    names: list[tuple[str, ...]]
    specs: list[PartitionSpec]

    @classmethod
    def of(cls, module: nnx.Module, where: Layout) -> _Lying:
        graph, params = param.split(module)
        weights, tree = jax.tree.flatten(params)
        axes = tree.flatten_up_to(param.axes(module))
        names = [a[len(a) - w.ndim :] for w, a in zip(weights, axes, strict=True)]  # of a stack's layer, the layer's
        specs = [where.rules.spec(a, w.shape, where.mesh) for w, a in zip(weights, names, strict=True)]
        return cls(graph, tree, weights, names, specs)

    def over(self, name: str) -> Over:
        """The axes of the mesh over which a logical axis is split, of all weights that have it."""
        each = zip(self.names, self.specs, strict=True)
        found = {_axes(spec[names.index(name)]) for names, spec in each if name in names}
        assert len(found) == 1, f"'{name}' is split in different ways: {found}"
        return found.pop()

    def gathered(self, parts: list[Array], kept: dict[str, Over]) -> Any:
        """The module of a device that holds these parts: each gathered over all axes but those `kept`."""
        weights = [_gathered(w, a, spec, kept) for w, a, spec in zip(parts, self.names, self.specs, strict=True)]
        return param.merge(self.graph, jax.tree.unflatten(self.tree, weights))


def _gathered(w: Array, names: tuple[str, ...], spec: PartitionSpec, kept: dict[str, Over]) -> Array:
    for dim, (name, on) in enumerate(zip(names, spec, strict=True)):
        if away := tuple(axis for axis in _axes(on) if axis not in kept.get(name, ())):
            w = lax.all_gather(w, away, axis=dim, tiled=True)
    if (parts := kept.get("mlp")) and "mlp" not in names:  # a bias of the sum over F: one of its parts adds it
        w = jnp.where(lax.axis_index(parts) == 0, w, 0)
    return w


def _divided(where: Layout, name: str, size: int) -> Over:
    return where.over(name) if size % where.ways(name) == 0 else ()


def _axes(part: str | Over | None) -> Over:
    """Of one dimension of a PartitionSpec, which writes one axis as a string."""
    return (part,) if isinstance(part, str) else part or ()


def _spec(*over: Over) -> PartitionSpec:
    return PartitionSpec(*(axes or None for axes in over))


def _exchanged(experts: Experts, owners: Over) -> Experts:
    """Experts of which each device of the axes `owners` has some, as a function of the rows of one device for all."""

    def there_and_back(x: Array, rows: Rows) -> Array:
        if isinstance(rows, Equal):
            x_ERD = lax.all_to_all(x, owners, split_axis=0, concat_axis=1, tiled=True)
            y_ERD = experts(x_ERD, Equal(len(x_ERD)))
            return lax.all_to_all(y_ERD, owners, split_axis=1, concat_axis=0, tiled=True)
        return _sorted_exchange(x, rows, experts, owners)

    return there_and_back


def _sorted_exchange(x: Float[Array, "A D"], rows: Sorted, experts: Experts, owners: Over) -> Float[Array, "A D"]:
    """No row is lost, whatever the imbalance, so memory is for the worst: room for all rows that W devices could send
    to one, W min(A, most E / W) of them [D] and [F]. What is empty of it isn't computed, nor sent where the backend has
    a ragged exchange; the CPU has none and sends it.
    """
    ways = lax.axis_size(owners)
    out_WE = rows.sizes.reshape(ways, -1)  # rows of mine for each expert of each owner
    in_WE = lax.all_to_all(out_WE, owners, split_axis=0, concat_axis=0, tiled=True)  # of each sender for mine
    count = in_WE.shape[1]
    room = min(len(x), count * rows.most)
    there, back = (_ragged if fast("gpu", "tpu") else _padded)(out_WE.sum(1), in_WE.sum(1), len(x), room, owners)
    come_ND = there(x)
    until_WE = jnp.cumsum(in_WE, axis=1)
    expert_N = jnp.sum(jnp.arange(room)[:, None] >= until_WE[:, None], axis=-1).reshape(-1)  # `count` where it is empty
    order = jnp.argsort(expert_N, stable=True)
    here = Sorted(in_WE.sum(0), jnp.minimum(expert_N[order], count - 1), ways * rows.most)
    return back(permuted(experts(permuted(come_ND, order), here), jnp.argsort(order)))


def _padded(out_W: Int[Array, "W"], in_W: Int[Array, "W"], size: int, room: int, owners: Over) -> tuple[Way, Way]:
    """Sends out_W of `size` rows to each device, which holds them in `room` places a sender; and sends them back."""
    first_W, place = jnp.cumsum(out_W) - out_W, jnp.arange(room)
    beyond = size + jnp.arange(len(out_W) * room).reshape(-1, room)  # for places that stay empty; no index twice
    at_N = jnp.where(place < out_W[:, None], first_W[:, None] + place, beyond).reshape(-1)

    def there(x: Array) -> Array:
        x_ND = x.at[at_N].get(mode="fill", fill_value=0, unique_indices=True)
        return lax.all_to_all(x_ND, owners, split_axis=0, concat_axis=0, tiled=True)

    def back(y: Array) -> Array:
        y_ND = lax.all_to_all(y, owners, split_axis=0, concat_axis=0, tiled=True)
        return jnp.zeros((size, y.shape[1]), y.dtype).at[at_N].set(y_ND, mode="drop", unique_indices=True)

    return there, back


def _ragged(out_W: Int[Array, "W"], in_W: Int[Array, "W"], size: int, room: int, owners: Over) -> tuple[Way, Way]:
    """As `_padded`, and only what there is is sent."""
    first_W, none_W = jnp.cumsum(out_W) - out_W, 0 * out_W
    # from none_W and not from constants, since under vmap the exchange takes either all of its numbers mapped or fails
    places_W = none_W + room * jnp.arange(len(out_W))
    mine_W = none_W + room * lax.axis_index(owners)  # where each device holds my rows
    origin_W = lax.all_to_all(first_W, owners, split_axis=0, concat_axis=0, tiled=True)  # where each has mine

    def there(x: Array) -> Array:
        empty = jnp.zeros((len(out_W) * room, x.shape[1]), x.dtype)
        return lax.ragged_all_to_all(x, empty, first_W, out_W, mine_W, in_W, axis_name=owners)

    def back(y: Array) -> Array:
        empty = jnp.zeros((size, y.shape[1]), y.dtype)
        return lax.ragged_all_to_all(y, empty, places_W, in_W, origin_W, out_W, axis_name=owners)

    return there, back
