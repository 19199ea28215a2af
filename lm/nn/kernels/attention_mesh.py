"""Attention on a mesh: every device reads for its own rows, its own heads and its own part of a row.

XLA splits products over rows and heads by itself, but neither a fused kernel, which is one opaque call to it, nor a
row, whose keys it would copy to every device. Both run under `shard_map`, where each device sees its part alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec

from lm.nn.kernels import attention_ring, attention_ulysses
from lm.nn.kernels.attention_blocked import Ids
from lm.nn.kernels.attention_heads import of_heads, read_heads
from lm.nn.kernels.attention_request import Bias, Request
from lm.shapes import Array, Float, Int
from lm.sharding import Layout, ShardingError


@dataclass(frozen=True)
class Split:
    """Over which axes of the mesh a call's rows, positions and heads are split, and the call that each device has.

    What the mesh doesn't divide is whole on every device, as in `sharding.constrain`.
    """

    layout: Layout
    rows: tuple[str, ...]
    length: tuple[str, ...]
    heads: tuple[str, ...]
    request: Request  # of one device; where Ulysses' exchange comes first, after it

    def ways(self, axes: tuple[str, ...]) -> int:
        return math.prod(self.layout.mesh.shape[axis] for axis in axes)

    @property
    def ring(self) -> bool:
        return bool(self.length) and self.layout.rules.sequence == "ring"


def split_of(where: Layout, request: Request, whole_rows: bool = False) -> Split:
    """How a call is split; `whole_rows`: over rows and heads alone. Raises ShardingError as `check_heads` does."""

    def over(name: str, *sizes: int) -> tuple[str, ...]:
        return where.over(name) if all(size % where.ways(name) == 0 for size in sizes) else ()

    rows, heads = over("batch", request.batch), over("heads", request.heads)
    length = () if whole_rows else over("length", request.queries, request.keys)
    split = Split(where, rows, length, heads, request)
    own = request.heads // split.ways(heads)
    changes = {"batch": request.batch // split.ways(rows), "heads": own}
    if split.ring:
        changes |= {name: getattr(request, name) // split.ways(length) for name in ("queries", "keys")}
    elif length:
        check_heads(where, request.heads)
        changes["heads"] = own // split.ways(length)
    kv_heads = len(read_heads(request.heads, request.kv_heads, 0, changes["heads"]))
    return dataclasses.replace(split, request=dataclasses.replace(request, kv_heads=kv_heads, **changes))


def check_heads(where: Layout, heads: int) -> None:
    """Raises ShardingError where Ulysses can't give every device of a row the same number of heads."""
    ways, tensor = where.ways("length"), where.ways("heads")
    own = heads // tensor if heads % tensor == 0 else heads
    if where.rules.sequence == "ulysses" and own % ways:
        each = f"{own} of {heads} heads on each tensor shard" if own < heads else f"{heads} heads"
        raise ShardingError(f"{each} can't be split {ways} ways over a row by Ulysses; use the ring (--rules sp)")


def attend(
    split: Split,
    kernel: Callable[..., Array] | None,
    q_BLHP: Float[Array, "B L H P"],
    k_BSKP: Float[Array, "B S K P"],
    v_BSKP: Float[Array, "B S K V"],
    *,
    q_positions: Int[Array, "B L"],
    k_positions: Int[Array, "B S"],
    q_segments: Int[Array, "B L"],
    k_segments: Int[Array, "B S"],
    bias: Bias | None,
    **told: Any,
) -> Float[Array, "B L H V"]:
    """Attention by shards. kernel: what computes whole rows on one device; None: the ring.

    Other arguments: `attention.attend`; `told` are those that every device has alike.
    """
    H, K = q_BLHP.shape[2], k_BSKP.shape[2]
    own = H // split.ways(split.heads)
    whole_keys = K % split.ways(split.heads) != 0

    def device(q_BLHP: Array, k_BSKP: Array, v_BSKP: Array, ids: Ids) -> Array:
        if whole_keys:  # fewer key heads than devices: each takes those that its query heads read
            read = read_heads(H, K, lax.axis_index(split.heads) * own, own)
            k_BSKP, v_BSKP = k_BSKP[:, :, read], v_BSKP[:, :, read]
        mine = None if bias is None else of_heads(bias, split.heads, own)
        over = split.length, split.ways(split.length)
        if kernel is None:
            return attention_ring.attend(*over, q_BLHP, k_BSKP, v_BSKP, ids, bias=mine, **told)
        if not split.length:
            return kernel(q_BLHP, k_BSKP, v_BSKP, **ids._asdict(), bias=mine, **told)
        return attention_ulysses.attend(*over, kernel, q_BLHP, k_BSKP, v_BSKP, ids, bias=mine, **told)

    rows, length, heads = split.rows or None, split.length or None, split.heads or None
    queries, per_token = PartitionSpec(rows, length, heads), PartitionSpec(rows, length)
    keys = PartitionSpec(rows, length, None if whole_keys else heads)
    ids = Ids(q_positions, k_positions, q_segments, k_segments)
    # the check of what is replicated knows no Pallas calls, and no derivative of ours whose keys are whole
    mapped = jax.shard_map(
        device,
        mesh=split.layout.mesh,
        in_specs=(queries, keys, keys, per_token),
        out_specs=queries,
        check_vma=False,
    )
    return mapped(q_BLHP, k_BSKP, v_BSKP, ids)
