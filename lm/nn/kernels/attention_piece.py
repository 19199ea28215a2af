"""Attention of some queries to some of their keys: its softmax, its log-sum-exp and its derivative, in few scores.

What a row that is split over devices is made of: pieces of keys are read one after another and joined.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lm.nn.kernels.attention_blocked import Ids, Static, back, derivative, queries_by_head, softmax
from lm.shapes import Array

SCORES = 2**25  # scores (B H L S) that may exist at once


class Piece(NamedTuple):
    """Queries and keys. Ids are positions and segments, side by side."""

    q: Array  # [B L K G P]
    k: Array  # [B S K P]
    v: Array  # [B S K V]
    k_ids: Array  # [B S 2]
    q_ids: Array  # [B L 2]

    def share_documents(self) -> Array:
        """False where no query's document can be among the keys': the ranges of their numbers don't meet."""
        (q_low, q_high), (k_low, k_high) = (_range(abs(ids[..., 1])) for ids in (self.q_ids, self.k_ids))
        return jnp.any((q_low <= k_high) & (k_low <= q_high))

    def chunk(self) -> int:
        """How many queries are read at a time."""
        B, L, K, G, _ = self.q.shape
        row = B * K * G * self.k.shape[1]
        return L // next(n for n in range(1, L + 1) if L % n == 0 and (L // n * row <= SCORES or n == L))

    def positions(self) -> tuple[Array, Array]:
        """Of the queries that are read at a time, and of the keys: what a bias is asked for."""
        return self.q_ids[:, : self.chunk(), 0], self.k_ids[..., 0]


def read(
    static: Static, bias: Callable[..., Array] | None, piece: Piece, consts: Sequence[Array]
) -> tuple[Array, Array]:
    """What the queries read [B L K G V], and their log-sum-exp [B L K G 1], in float32.

    bias: of positions of queries and keys, then of `consts`.
    """
    k_BKSP, v_BKSV = piece.k.swapaxes(1, 2), piece.v.swapaxes(1, 2)

    def chunk(nothing: None, q_BLKGP: Array, q_ids: Array) -> tuple[None, tuple[Array, Array]]:
        ids, L = _ids(q_ids, piece.k_ids), q_BLKGP.shape[1]
        scores, seen = static.scores(queries_by_head(q_BLKGP), k_BKSP, ids)
        if bias is not None:
            scores += _added(bias, ids, scores, *consts)
        out, lse = softmax(scores, seen, v_BKSV)
        return nothing, (back(out, L), back(lse, L))

    return _by_chunks(chunk, None, (piece.q, piece.q_ids), piece.chunk())[1]


def gradients(
    static: Static,
    bias: Callable[..., Array] | None,
    piece: Piece,
    consts: Sequence[Array],
    dout_BLKGV: Array,
    pull_BLKG1: Array,
    lse_BLKG1: Array,
) -> tuple[Array, tuple[Array, Array], list[Array]]:
    """Of queries, (keys, values) and consts, in float32: this piece's share of them.

    pull: sum over V of the gradient of the whole result times the result; lse: log-sum-exp over all pieces.
    """
    k_BKSP, v_BKSV = piece.k.swapaxes(1, 2), piece.v.swapaxes(1, 2)

    def chunk(sums: Any, q_BLKGP: Array, q_ids: Array, *of_queries: Array) -> tuple[Any, Array]:
        ids, q = _ids(q_ids, piece.k_ids), queries_by_head(q_BLKGP)
        scores, seen = static.scores(q, k_BKSP, ids)
        added, pull_consts = None, None
        if bias is not None:
            shaped = functools.partial(_added, bias, ids, scores)
            added, pull_consts = jax.vjp(shaped, *consts)
        dout, pull, lse = map(queries_by_head, of_queries)
        dq, dk, dv, dscores = derivative(static, q, k_BKSP, v_BKSV, scores, seen, added, dout, pull, lse)
        dconsts = [] if pull_consts is None else list(pull_consts(dscores))
        found = dk.transpose(0, 3, 1, 2), dv.transpose(0, 3, 1, 2), dconsts
        return jax.tree.map(jnp.add, sums, found), back(dq, q_BLKGP.shape[1])

    sums = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (piece.k, piece.v, list(consts)))
    of_queries = piece.q, piece.q_ids, dout_BLKGV, pull_BLKG1, lse_BLKG1
    (dk, dv, dconsts), dq = _by_chunks(chunk, sums, of_queries, piece.chunk())
    return dq, (dk, dv), dconsts


def _added(bias: Callable[..., Array], ids: Ids, like_BKNS: Array, *consts: Array) -> Array:
    """The bias in the shape of the scores."""
    found = bias(ids.q_positions, ids.k_positions, *consts)
    return jnp.broadcast_to(found.reshape(-1, *like_BKNS.shape[1:]), like_BKNS.shape)


def _ids(q_ids: Array, k_ids: Array) -> Ids:
    return Ids(q_ids[..., 0], k_ids[..., 0], q_ids[..., 1], k_ids[..., 1])


def _range(numbers_BL: Array) -> tuple[Array, Array]:
    return jnp.min(numbers_BL, axis=1), jnp.max(numbers_BL, axis=1)


def _by_chunks(
    chunk: Callable[..., tuple[Any, Any]], carry: Any, queries: tuple[Array, ...], length: int
) -> tuple[Any, Any]:
    """`chunk(carry, *queries) -> (carry, outs)` over `length` queries at a time; queries are axis 1."""
    if queries[0].shape[1] == length:
        return chunk(carry, *queries)

    def stacked(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(x.shape[0], -1, length, *x.shape[2:]), 1, 0)

    def whole(x: Array) -> Array:
        return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])

    carry, outs = lax.scan(lambda carry, some: chunk(carry, *some), carry, tuple(map(stacked, queries)))
    return carry, jax.tree.map(whole, outs)
