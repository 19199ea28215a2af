"""A row split over devices that stand in a ring: queries stay, keys and values go round (Liu et al. 2023, arXiv
2310.01889).

Each device joins what its queries read of each part by log-sum-exp. The derivative is our own: it sends keys round once
more, with their gradients, and recomputes probabilities from log-sum-exp, so a device keeps its part of a row and
never more. (Checkpointed steps would keep the keys that each step saw, which together are the whole row's.)

In a causal row the last device would read all parts and the first one only its own. Such a row is cut into twice as
many pieces as there are devices, and for the time of the attention device i has pieces i and 2n - 1 - i ("zigzag"):
then every device has the same to do at every step. Pieces that can't see each other are skipped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lm.nn.kernels.attention_blocked import UNSEEN, Ids, Static
from lm.nn.kernels.attention_piece import Piece, gradients, read
from lm.nn.kernels.attention_request import Bias
from lm.nn.mask import Mask
from lm.shapes import Array, Float


@dataclass(frozen=True)
class Ring:
    """What a compiled ring is made for."""

    axes: tuple[str, ...]  # of the mesh
    size: int
    zigzag: bool
    ordered: bool
    static: Static
    bias: Callable[..., Array] | None  # of positions, and of the arrays that it closes over

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Which of a device's pieces of queries may see which of another's pieces of keys."""
        return ((0, 0), (1, 0), (1, 1)) if self.zigzag else ((0, 0),)

    def place(self, device: Any, piece: int) -> Any:
        """Where in the row, counted in pieces, a device's piece lies."""
        return 2 * self.size - 1 - device if piece else device

    def may_see(self, query: Any, key: Any, length: int) -> Any:
        """False where the order of an ordered row rules out that a piece at `query` sees one at `key`."""
        mask, seen = self.static.mask, True
        if self.ordered and not mask.sees_later:
            seen &= key <= query
        if self.ordered and mask.reach is not None:
            seen &= (abs(query - key) - 1) * length + 1 <= mask.reach
        return seen


class Keys(NamedTuple):
    """What goes round. ids: positions and segments [B S 2]."""

    k: Array  # [B S K P]
    v: Array  # [B S K V]
    ids: Array


def attend(
    axes: tuple[str, ...],
    size: int,
    q_BLHP: Float[Array, "B L H P"],
    k_BSKP: Float[Array, "B S K P"],
    v_BSKP: Float[Array, "B S K V"],
    ids: Ids,
    *,
    mask: Mask,
    bias: Bias | None,
    scale: float,
    softcap: float | None,
    ordered: bool,
) -> Float[Array, "B L H V"]:
    """On one of `size` devices along `axes` of the mesh, for its part of each row; inside `shard_map`.

    Other arguments: `attention.attend`.
    """
    (B, L, H, P), K = q_BLHP.shape, k_BSKP.shape[2]
    q_BLKGP = q_BLHP.reshape(B, L, K, H // K, P)
    q_ids, k_ids = (jnp.stack([getattr(ids, f"{n}_positions"), getattr(ids, f"{n}_segments")], -1) for n in "qk")
    zigzag = ordered and not mask.sees_later and mask.reach is None and L % 2 == 0
    turn = functools.partial(_turned, axes, size) if zigzag else lambda x, back=False: x
    q_BLKGP, keys, q_ids = turn(q_BLKGP), Keys(turn(k_BSKP), turn(v_BSKP), turn(k_ids)), turn(q_ids)
    consts: list[Array] = []
    if bias is not None:  # a custom derivative must be given what the bias closes over
        pieces = 1 + zigzag
        first = (x[:, : x.shape[1] // pieces] for x in (q_BLKGP, *keys, q_ids))
        example = Piece(*first)
        bias, consts = jax.closure_convert(bias, *example.positions())
    ring = Ring(axes, size, zigzag, ordered, Static(mask, scale, softcap, ()), bias)
    return turn(_ring(ring, q_BLKGP, keys, q_ids, consts), back=True).reshape(B, L, H, -1)


def _turned(axes: tuple[str, ...], size: int, x: Array, back: bool = False) -> Array:
    """From a device's two neighbouring pieces of a row [B L ...] to its zigzag ones, and back.

    The first pieces of all devices go to different devices, and so do the second ones: two exchanges in all.
    """
    home = [piece if piece < size else 2 * size - 1 - piece for piece in range(2 * size)]
    ways = [[(i, home[2 * i + half]) for i in range(size)] for half in (0, 1)]
    first, second = jnp.split(x, 2, axis=1)
    even = lax.axis_index(axes) % 2 == 0  # the pieces that come first on an even device are even ones
    if back:
        first, second = jnp.where(even, first, second), jnp.where(even, second, first)
        ways = [[(to, at) for at, to in way] for way in ways]
    first, second = (lax.ppermute(half, axes, way) for half, way in zip((first, second), ways, strict=True))
    if not back:
        first, second = jnp.where(even, first, second), jnp.where(even, second, first)
    return jnp.concatenate([first, second], axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring(ring: Ring, q_BLKGP: Array, keys: Keys, q_ids: Array, consts: list[Array]) -> Array:
    return _forward(ring, q_BLKGP, keys, q_ids, consts)[0]


def _forward(ring: Ring, q_BLKGP: Array, keys: Keys, q_ids: Array, consts: list[Array]) -> tuple[Array, tuple]:
    queries = _cut(ring, (q_BLKGP, q_ids))

    def step(carry: Any, count: Any) -> Any:
        (known, keys), parts = carry, _cut(ring, carry[1])
        for a, b in ring.pairs():
            (q, ids), old = queries[a], known[a]
            piece = Piece(q, *parts[b], q_ids=ids)
            new = functools.partial(_more, ring, piece, consts)
            known[a] = lax.cond(_seen(ring, piece, count, a, b), new, lambda old: old, old)
        return (known, _sent(ring, keys)), None  # sent while they are read; at last home, so that one loop does it all

    (known, _), _ = lax.scan(step, (_nothing(queries, keys), keys), jnp.arange(ring.size))
    out, lse = (jnp.concatenate(parts, axis=1) for parts in zip(*known, strict=True))
    out = out.astype(keys.v.dtype)
    return out, (q_BLKGP, keys, q_ids, consts, out, lse)


def _nothing(queries: list[Any], keys: Keys) -> list[tuple[Array, Array]]:
    """What queries that have read nothing know: no sum, and the log-sum-exp of no keys."""
    made = []
    for q_BLKGP, _ in queries:
        shape = q_BLKGP.shape[:-1]
        made.append((jnp.zeros((*shape, keys.v.shape[-1]), jnp.float32), jnp.full((*shape, 1), UNSEEN, jnp.float32)))
    return made


def _more(ring: Ring, piece: Piece, consts: list[Array], known: tuple[Array, Array]) -> tuple[Array, Array]:
    """What is known, joined with what a piece says: two softmaxes, each weighed by its share of the sum."""
    (out, lse), (more, its) = known, read(ring.static, ring.bias, piece, consts)
    both = jnp.logaddexp(lse, its)
    return out * jnp.exp(lse - both) + more * jnp.exp(its - both), both


def _backward(ring: Ring, saved: tuple, dout_BLKGP: Array) -> tuple:
    q_BLKGP, keys, q_ids, consts, out_BLKGP, lse = saved
    pull = jnp.sum(dout_BLKGP.astype(jnp.float32) * out_BLKGP, axis=-1, keepdims=True)
    queries = _cut(ring, (q_BLKGP, q_ids, dout_BLKGP, pull, lse))
    zeros: Any = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)  # noqa: E731

    def step(carry: Any, count: Any) -> Any:
        dqs, dconsts, dkeys, keys = carry
        parts = _cut(ring, keys)
        own = [zeros((k, v)) for k, v, _ in parts]
        for a, b in ring.pairs():
            q, ids, *rest = queries[a]
            piece = Piece(q, *parts[b], q_ids=ids)
            more = functools.partial(_added, ring, piece, consts, *rest)
            now = dqs[a], own[b], dconsts
            dqs[a], own[b], dconsts = lax.cond(_seen(ring, piece, count, a, b), more, lambda old: old, now)
        own = tuple(jnp.concatenate(parts, axis=1) for parts in zip(*own, strict=True))
        # keys leave while they are read, and what others found of their gradient comes a step after them
        return (dqs, dconsts, jax.tree.map(jnp.add, _sent(ring, dkeys), own), _sent(ring, keys)), None

    start = [zeros(q) for q, *_ in queries], zeros(consts), zeros((keys.k, keys.v)), keys
    (dqs, dconsts, dkeys, _), _ = lax.scan(step, start, jnp.arange(ring.size))
    dk, dv = _sent(ring, dkeys)  # home
    dq = jnp.concatenate(dqs, axis=1).astype(q_BLKGP.dtype)
    dkeys = Keys(dk.astype(keys.k.dtype), dv.astype(keys.v.dtype), None)  # type: ignore[arg-type]
    return dq, dkeys, None, jax.tree.map(lambda d, c: d.astype(c.dtype), dconsts, consts)


_ring.defvjp(_forward, _backward)


def _added(ring: Ring, piece: Piece, consts: list[Array], dout: Array, pull: Array, lse: Array, before: Any) -> Any:
    found = gradients(ring.static, ring.bias, piece, consts, dout, pull, lse)
    return jax.tree.map(jnp.add, before, found)


def _sent(ring: Ring, tree: Any) -> Any:
    """From every device to the next one."""
    return lax.ppermute(tree, ring.axes, [(i, (i + 1) % ring.size) for i in range(ring.size)])


def _cut(ring: Ring, tree: Any) -> list[Any]:
    """Arrays [B L ...] by pieces."""
    if not ring.zigzag:
        return [tree]
    halves = [jnp.split(x, 2, axis=1) for x in tree]
    return [tuple(half[i] for half in halves) for i in (0, 1)]


def _seen(ring: Ring, piece: Piece, count: Any, a: int, b: int) -> Any:
    """Whether any of a device's queries in piece a may see a key in piece b of what came to it after `count` steps."""
    device = lax.axis_index(ring.axes)
    query, key = ring.place(device, a), ring.place((device - count) % ring.size, b)
    return ring.may_see(query, key, piece.q.shape[1]) & piece.share_documents()
