"""Attention in blocks of queries: the XLA form for every platform, bounded in memory and fast on CPU.

Each block of queries is static, so what no query of it may see (the upper triangle, keys before the window) is never
computed. Two backward passes: short calls recompute probabilities from the saved log-sum-exp (Dao et al. 2022, arXiv
2205.14135, section 3.1); long calls, and those with a bias, whose gradient must reach what the bias closes over, are
differentiated by JAX through checkpointed chunks, one after another.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lm.nn.kernels import attention_plain
from lm.nn.kernels.attention_plain import MASKED
from lm.nn.kernels.attention_request import Bias, Request
from lm.nn.kernels.platform import settled
from lm.nn.mask import Mask
from lm.shapes import Array, Float, Int

SHORT = 2**25  # scores (B H L S) that may exist at once in the backward pass
CHUNK = 2**21  # scores of one chunk of a long call
UNSEEN = MASKED / 2  # log-sum-exp of no keys is about it, and exp(MASKED - UNSEEN) is 0
FEW = 8  # so few queries are decoding: no blocks, and keys stay where they lie


def unsupported(request: Request) -> str | None:
    """Nothing: every mask, bias and length."""
    del request
    return None


@dataclass(frozen=True)
class Block:
    """Queries `start:stop` see keys `low:high`, and no others."""

    start: int
    stop: int
    low: int
    high: int


def blocks(mask: Mask, queries: int, keys: int, ordered: bool) -> tuple[Block, ...]:
    """Static blocks that together cover every pair the mask may allow."""
    if not ordered or (mask.sees_later and mask.reach is None):
        return (Block(0, queries, 0, keys),)
    count = max(1, min(queries // 64, 8 if mask.reach is None else 16))
    edges = [round(i * queries / count) for i in range(count + 1)]
    back = keys if mask.reach is None else mask.reach
    ahead = back if mask.sees_later else 0
    return tuple(Block(a, b, max(0, a - back), min(keys, b + ahead)) for a, b in itertools.pairwise(edges))


def attend(
    q_BLHP: Float[Array, "B L H P"],
    k_BSKP: Float[Array, "B S K P"],
    v_BSKP: Float[Array, "B S K V"],
    *,
    mask: Mask,
    q_positions: Int[Array, "B L"],
    k_positions: Int[Array, "B S"],
    q_segments: Int[Array, "B L"],
    k_segments: Int[Array, "B S"],
    bias: Bias | None,
    scale: float,
    softcap: float | None,
    ordered: bool,
) -> Float[Array, "B L H V"]:
    """Attention block by block. Arguments: `attention.attend`."""
    B, L, H, P = q_BLHP.shape
    S, K = k_BSKP.shape[1:3]
    ids = Ids(q_positions, k_positions, q_segments, k_segments)
    static = Static(mask, scale, softcap, blocks(mask, L, S, ordered))
    if L <= FEW:
        return attention_plain.attend(
            q_BLHP, k_BSKP, v_BSKP, **ids._asdict(), mask=mask, bias=bias, scale=scale, softcap=softcap, ordered=ordered
        )
    q_BLKGP = q_BLHP.reshape(B, L, K, H // K, P)
    if bias is None and B * H * L * S <= SHORT:
        out_BLKGP: Any = _short(static, q_BLKGP, k_BSKP, v_BSKP, ids)
    else:
        out_BLKGP = _long(static, q_BLKGP, k_BSKP, v_BSKP, ids, bias)
    return out_BLKGP.reshape(B, L, H, -1)


class Ids(NamedTuple):
    """What the mask is computed from."""

    q_positions: Int[Array, "B L"]
    k_positions: Int[Array, "B S"]
    q_segments: Int[Array, "B L"]
    k_segments: Int[Array, "B S"]

    def of(self, block: Block) -> Ids:
        rows, columns = slice(block.start, block.stop), slice(block.low, block.high)
        q_ids = self.q_positions[:, rows], self.q_segments[:, rows]
        k_ids = self.k_positions[:, columns], self.k_segments[:, columns]
        return Ids(q_ids[0], k_ids[0], q_ids[1], k_ids[1])


@dataclass(frozen=True)
class Static:
    """What a compiled call is made for."""

    mask: Mask
    scale: float
    softcap: float | None
    blocks: tuple[Block, ...]

    def scores(self, q_BKNP: Array, k_BKSP: Array, ids: Ids) -> tuple[Array, Array]:
        """Scores [B, K, N, S] in float32, and where they count [B, 1, N, S]; N is the group's queries, G x L."""
        scores_BKNS = self.scale * matmul("BKNP,BKSP->BKNS", q_BKNP, k_BKSP)
        if self.softcap is not None:
            scores_BKNS = self.softcap * jnp.tanh(scores_BKNS / self.softcap)
        seen_BLS = self.mask.allowed(ids.q_positions, ids.k_positions, ids.q_segments, ids.k_segments)
        B, L, S = seen_BLS.shape
        N = scores_BKNS.shape[2]
        return scores_BKNS, jnp.broadcast_to(seen_BLS[:, None, None], (B, 1, N // L, L, S)).reshape(B, 1, N, S)


def softmax(scores_BKNS: Array, seen: Array, v_BKSP: Array) -> tuple[Array, Array]:
    """softmax(scores) v over what is seen, and log-sum-exp, in float32. Zeros, and no NaN, where nothing is."""
    scores_BKNS = jnp.where(seen, scores_BKNS, MASKED)
    top = jnp.maximum(lax.stop_gradient(jnp.max(scores_BKNS, axis=-1, keepdims=True)), UNSEEN)
    mass = jnp.exp(scores_BKNS - top)
    total = jnp.maximum(jnp.sum(mass, axis=-1, keepdims=True), 0.5)  # at least 1 where anything is seen
    summed = matmul("BKNS,BKSP->BKNP", mass.astype(v_BKSP.dtype), v_BKSP)
    return summed / total, top + jnp.log(total)


# four dimensions, groups and queries as one: XLA:CPU runs products of five at half the speed
matmul = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def queries_by_head(x_BLKGP: Array) -> Array:
    """[B, L, K, G, P] -> [B, K, G L, P]: what meets one key head."""
    B, L, K, G, P = x_BLKGP.shape
    return x_BLKGP.transpose(0, 2, 3, 1, 4).reshape(B, K, G * L, P)


def back(x_BKNP: Array, queries: int) -> Array:
    """[B, K, G L, P] -> [B, L, K, G, P]."""
    B, K, _, P = x_BKNP.shape
    return x_BKNP.reshape(B, K, -1, queries, P).transpose(0, 3, 1, 2, 4)


def derivative(
    static: Static,
    q_BKNP: Array,
    k_BKSP: Array,
    v_BKSP: Array,
    scores_BKNS: Array,
    seen: Array,
    added_BKNS: Array | None,
    dout_BKNP: Array,
    pull_BKN1: Array,
    lse_BKN1: Array,
) -> tuple[Array, Array, Array, Array]:
    """Gradients in float32: of q [B K N P], k [B K P S], v [B K P S] and what was `added` to the scores [B K N S]."""
    known = scores_BKNS if added_BKNS is None else scores_BKNS + added_BKNS
    probs = jnp.exp(jnp.where(seen, known, MASKED) - lse_BKN1)  # 0 where nothing is seen: lse is at least UNSEEN
    dadded = probs * (matmul("BKNP,BKSP->BKNS", dout_BKNP, v_BKSP) - pull_BKN1)
    dscores = dadded if static.softcap is None else dadded * (1.0 - (scores_BKNS / static.softcap) ** 2)
    dscores = (static.scale * dscores).astype(q_BKNP.dtype)
    # the products contract over queries: transposing q and dout is cheaper than transposing N x S
    qT, doutT = q_BKNP.swapaxes(2, 3), dout_BKNP.swapaxes(2, 3)
    probs, dscores, qT, doutT = settled((probs.astype(v_BKSP.dtype), dscores, qT, doutT))
    dq_BKNP = matmul("BKNS,BKSP->BKNP", dscores, k_BKSP)
    return dq_BKNP, matmul("BKPN,BKNS->BKPS", qT, dscores), matmul("BKPN,BKNS->BKPS", doutT, probs), dadded


# ---- short: probabilities recomputed from log-sum-exp ----------------------------------------------------------


# Blocks are cut from arrays as the layer gives them: cutting and transposing is then one copy.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _short(static: Static, q_BLKGP: Array, k_BSKP: Array, v_BSKP: Array, ids: Ids) -> Array:
    return _short_forward(static, q_BLKGP, k_BSKP, v_BSKP, ids)[0]


def _short_forward(static: Static, q_BLKGP: Array, k_BSKP: Array, v_BSKP: Array, ids: Ids) -> tuple[Array, tuple]:
    outs, lses = [], []
    for block in static.blocks:
        rows, columns = slice(block.start, block.stop), slice(block.low, block.high)
        k, v = (x[:, columns].swapaxes(1, 2) for x in (k_BSKP, v_BSKP))
        scores, seen = static.scores(queries_by_head(q_BLKGP[:, rows]), k, ids.of(block))
        out, lse = softmax(scores, seen, v)
        outs.append(back(out.astype(v.dtype), block.stop - block.start))
        lses.append(lse)
    out_BLKGP = jnp.concatenate(outs, axis=1)
    return out_BLKGP, (q_BLKGP, k_BSKP, v_BSKP, ids, out_BLKGP, lses)


def _short_backward(static: Static, saved: tuple, dout_BLKGP: Array) -> tuple:
    q_BLKGP, k_BSKP, v_BSKP, ids, out_BLKGP, lses = saved
    pull_BLKG1 = jnp.sum(dout_BLKGP.astype(jnp.float32) * out_BLKGP, axis=-1, keepdims=True)
    dqs: list[Array] = []
    dk_BKPS, dv_BKPS = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)
    for block, lse in zip(static.blocks, lses, strict=True):
        rows, columns = slice(block.start, block.stop), slice(block.low, block.high)
        k, v = (x[:, columns].swapaxes(1, 2) for x in (k_BSKP, v_BSKP))
        q, dout, pull = (queries_by_head(x[:, rows]) for x in (q_BLKGP, dout_BLKGP, pull_BLKG1))
        scores, seen = static.scores(q, k, ids.of(block))
        dq, dk, dv, _ = derivative(static, q, k, v, scores, seen, None, dout, pull, lse)
        outside = ((0, 0), (0, 0), (0, 0), (block.low, k_BSKP.shape[1] - block.high))
        dk_BKPS += jnp.pad(dk, outside)
        dv_BKPS += jnp.pad(dv, outside)
        dqs.append(back(dq.astype(q.dtype), block.stop - block.start))
    dk_BSKP, dv_BSKP = dk_BKPS.transpose(0, 3, 1, 2), dv_BKPS.transpose(0, 3, 1, 2)
    return jnp.concatenate(dqs, axis=1), dk_BSKP.astype(k_BSKP.dtype), dv_BSKP.astype(v_BSKP.dtype), None


_short.defvjp(_short_forward, _short_backward)


# ---- long: checkpointed chunks -----------------------------------------------------------------------------------


def _long(static: Static, q_BLKGP: Array, k_BSKP: Array, v_BSKP: Array, ids: Ids, bias: Bias | None) -> Array:
    outs = []
    for block in static.blocks:
        rows, columns = slice(block.start, block.stop), slice(block.low, block.high)
        seen_ids = ids.of(block)
        k, v = (x[:, columns].swapaxes(1, 2) for x in (k_BSKP, v_BSKP))
        chunk = functools.partial(_chunk, static, bias, k, v, seen_ids)
        row_scores = q_BLKGP[:, 0, ..., 0].size * (block.high - block.low)
        queries = q_BLKGP[:, rows], seen_ids.q_positions, seen_ids.q_segments
        outs.append(_one_after_another(jax.checkpoint(chunk), queries, max(16, CHUNK // row_scores)))
    return jnp.concatenate(outs, axis=1)


def _chunk(
    static: Static,
    bias: Bias | None,
    k_BKSP: Array,
    v_BKSP: Array,
    ids: Ids,
    q_BLKGP: Array,
    q_positions: Array,
    q_segments: Array,
) -> Array:
    ids = ids._replace(q_positions=q_positions, q_segments=q_segments)
    scores, seen = static.scores(queries_by_head(q_BLKGP), k_BKSP, ids)
    if bias is not None:
        scores += bias(q_positions, ids.k_positions).reshape(-1, *scores.shape[1:])
    return back(softmax(scores, seen, v_BKSP)[0].astype(v_BKSP.dtype), q_BLKGP.shape[1])


def _one_after_another(chunk: Callable[..., Array], queries: tuple[Array, Array, Array], size: int) -> Array:
    """`chunk` over `size` queries at a time; queries are axis 1 of all arguments and of the result."""
    L = queries[0].shape[1]
    if size >= L:
        return chunk(*queries)
    whole = L // size * size

    def stacked(x: Array) -> Array:
        return jnp.moveaxis(x[:, :whole].reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)

    out = lax.map(lambda part: chunk(*part), tuple(map(stacked, queries)))
    out = jnp.moveaxis(out, 0, 1).reshape(out.shape[1], whole, *out.shape[3:])
    if whole == L:
        return out
    return jnp.concatenate([out, chunk(*(x[:, whole:] for x in queries))], axis=1)
