"""The grouped product: rows sorted by group, each times the matrix of its group (the experts' product)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from lm.nn.kernels.platform import fast, settled
from lm.shapes import Array, Float, Int

LARGEST = 128  # rows of a block on CPU: large enough for the native product, small enough not to leave much of it empty
SMALLEST = 8  # below so many rows a group, one row at a time: most blocks would be nearly empty

_BY_GROUP = lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((0,), (0,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[]
)


def grouped(
    x: Float[Array, "A I"], w: Float[Array, "E I O"], sizes: Int[Array, "E"], *, plain: bool | None = None
) -> Float[Array, "A O"]:
    """Row a of x times w[e], in x's dtype, where the first sizes[0] rows have e = 0, the next sizes[1] e = 1, ...

    The sizes add up to A at most; rows beyond their sum are 0 and have no gradient. It is `jax.lax.ragged_dot`, with a
    derivative that can be vmapped: several such products side by side are one with more groups.

    plain: True for `ragged_dot` itself; False for a loop over blocks of rows of one group; None chooses by platform:
    the loop on CPU, where XLA multiplies every row by every matrix.
    """
    if x.shape[1] != w.shape[1] or sizes.shape != w.shape[:1]:
        raise ValueError(f"grouped: rows {x.shape}, matrices {w.shape} and sizes {sizes.shape} don't fit together")
    blocked = fast("cpu") if plain is None else not plain
    return _grouped(blocked, x, w.astype(x.dtype), sizes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _grouped(blocked: bool, x_AI: Array, w_EIO: Array, sizes_E: Array) -> Array:
    return (_blocked_product if blocked else _ragged_product)(x_AI, w_EIO, sizes_E)


def _forward(blocked: bool, x_AI: Array, w_EIO: Array, sizes_E: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    x_AI = settled(x_AI)
    return _grouped(blocked, x_AI, w_EIO, sizes_E), (x_AI, w_EIO, sizes_E)


def _backward(blocked: bool, saved: tuple[Array, Array, Array], dy_AO: Array) -> tuple[Array, Array, None]:
    x_AI, w_EIO, sizes_E = saved
    x_AI, dy_AO = settled((x_AI, dy_AO))
    outer = _blocked_outer if blocked else _ragged_outer
    return _grouped(blocked, dy_AO, w_EIO.swapaxes(1, 2), sizes_E), outer(x_AI, dy_AO, sizes_E), None


_grouped.defvjp(_forward, _backward)


def _side_by_side(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function`, whose vmap is itself with the groups of all in one row: every argument's first axis grows.

    The first argument is rows, the last the sizes. Rows beyond these would move the next groups: they become zeros of
    the last group, to which they add nothing.
    """
    mapped = custom_vmap(function)

    @mapped.def_vmap
    def rule(count: int, batched: list[bool], *arguments: Array) -> tuple[Array, bool]:  # pyright: ignore[reportUnusedFunction]
        every = [x if on else jnp.broadcast_to(x, (count, *x.shape)) for x, on in zip(arguments, batched, strict=True)]
        if count > 1:
            rows, *others, sizes = every
            left = rows.shape[1] - jnp.sum(sizes, axis=1)
            rows = jnp.where(jnp.arange(rows.shape[1])[:, None] < rows.shape[1] - left[:, None, None], rows, 0)
            every = [rows, *others, sizes.at[:, -1].add(left)]
        y = mapped(*(x.reshape(-1, *x.shape[2:]) for x in every))
        return y.reshape(count, -1, *y.shape[1:]), True

    return mapped


# ---- by the library: for accelerators, and the definition -----------------------------------------------------------


@_side_by_side
def _ragged_product(x_AI: Array, w_EIO: Array, sizes_E: Array) -> Array:
    y_AO = lax.ragged_dot(x_AI, w_EIO, sizes_E)
    return jnp.where(jnp.arange(len(y_AO))[:, None] < jnp.sum(sizes_E), y_AO, 0)  # beyond: some backends write nothing


@_side_by_side
def _ragged_outer(x_AI: Array, dy_AO: Array, sizes_E: Array) -> Array:
    """[E I O]: x^T dy of each group's rows."""
    return lax.ragged_dot_general(x_AI, dy_AO, sizes_E, _BY_GROUP)


# ---- by blocks of rows: for CPU ------------------------------------------------------------------------------------


@_side_by_side
def _blocked_product(x_AI: Array, w_EIO: Array, sizes_E: Array) -> Array:
    def block(y_AO: Array, x: Array, group: Array, at: Array, mine: Array) -> Array:
        y = x @ lax.dynamic_index_in_dim(w_EIO, group, keepdims=False)
        there = lax.dynamic_slice_in_dim(y_AO, at, len(y))
        return lax.dynamic_update_slice_in_dim(y_AO, jnp.where(mine, y, there), at, axis=0)

    return _over_blocks(block, jnp.zeros((len(x_AI), w_EIO.shape[2]), x_AI.dtype), x_AI, sizes_E)


@_side_by_side
def _blocked_outer(x_AI: Array, dy_AO: Array, sizes_E: Array) -> Array:
    def block(dw_EIO: Array, x: Array, group: Array, at: Array, mine: Array) -> Array:
        dy = jnp.where(mine, lax.dynamic_slice_in_dim(dy_AO, at, len(x)), 0)
        return dw_EIO.at[group].add(lax.dot(x.T, dy, preferred_element_type=jnp.float32))

    total = jnp.zeros((len(sizes_E), x_AI.shape[1], dy_AO.shape[1]), jnp.float32)
    return _over_blocks(block, total, x_AI, sizes_E).astype(x_AI.dtype)


def block_rows(rows: int, groups: int) -> int:
    """Rows of a block: a power of two, about as many as a group has."""
    each = rows // groups
    return 1 if each < SMALLEST else min(LARGEST, 1 << (each.bit_length() - 1))


def _over_blocks(block: Callable[..., Array], carry: Array, x_AI: Array, sizes_E: Array) -> Array:
    """carry = block(carry, rows of x, their group, where they begin, which of them are the group's) for every block.

    The last block of a group reaches into the next groups' rows, or, at the end, begins before its own.
    """
    rows, groups = len(x_AI), len(sizes_E)
    size = block_rows(rows, groups)
    most = (rows + min(groups, rows) * (size - 1)) // size  # blocks, however the rows are shared out
    ends_E = jnp.cumsum(sizes_E)
    blocks_E = -(-sizes_E // size)
    until_E = jnp.cumsum(blocks_E)

    def one(carry: Array, index: Array) -> tuple[Array, None]:
        group = jnp.searchsorted(until_E, index, side="right", method="compare_all")
        first = (ends_E - sizes_E)[group] + size * (index - (until_E - blocks_E)[group])
        at = jnp.minimum(first, rows - size)
        row = at + jnp.arange(size)
        mine = (row >= first) & (row < ends_E[group])
        x = lax.dynamic_slice_in_dim(x_AI, at, size)
        return block(carry, x, group, at, mine[:, None]), None

    def maybe(carry: Array, index: Array) -> tuple[Array, None]:
        return lax.cond(index < until_E[-1], lambda c: one(c, index)[0], lambda c: c, carry), None

    return lax.scan(one if size == 1 else maybe, carry, jnp.arange(most))[0]
