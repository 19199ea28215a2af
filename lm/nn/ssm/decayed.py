"""Linear attention with a scalar decay a head: one recurrence under Mamba-2, RetNet and the gated delta rule.

    S_t = a_t S_{t-1} + k_t u_t^T        y_t = S_t^T q_t        S_t [N P], a_t = exp(log_decay_t), S = 0 where t resets

with u_t = v_t, or for the delta rule u_t = beta_t (v_t - a_t S_{t-1}^T k_t). In a chunk of c tokens all u are written
at once (the state-space duality of Dao and Gu 2024, section 6; RetNet's chunkwise form, Sun et al. 2023, equation 7):

    y_t = exp(A_t) S_0^T q_t + sum_{s <= t} exp(A_t - A_s) (q_t . k_s) u_s        A_t = log_decay_1 + ... + log_decay_t

Of one token it is the recurrence itself, which is how decoding runs. H heads share G queries and keys, head h those of
h // (H / G). Products are in the arrays' type and summed in float32; decays and the state are float32.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.nn.cost import Cost
from lm.nn.ssm.chunks import balanced, over_chunks
from lm.nn.ssm.triangular import flops, solve
from lm.shapes import Array, Bool, Float


def decayed(
    q_BLGN: Float[Array, "B L G N"],
    k_BLGN: Float[Array, "B L G N"],
    v_BLHP: Float[Array, "B L H P"],
    log_decay_BLH: Float[Array, "B L H"],
    resets_BL: Bool[Array, "B L"],
    state_BHNP: Float[Array, "B H N P"],
    *,
    chunk: int,
) -> tuple[Float[Array, "B L H P"], Float[Array, "B H N P"]]:
    """(y, the state after the last token). A token with log_decay 0 and key 0 leaves the state as it was."""
    arrays = (q_BLGN, k_BLGN, _grouped(v_BLHP, k_BLGN), _grouped(log_decay_BLH, k_BLGN), resets_BL)
    return _ungrouped(*over_chunks(_write_values, _grouped_state(state_BHNP, k_BLGN), arrays, chunk), v_BLHP)


def decayed_delta(
    q_BLGN: Float[Array, "B L G N"],
    k_BLGN: Float[Array, "B L G N"],
    v_BLHP: Float[Array, "B L H P"],
    beta_BLH: Float[Array, "B L H"],
    log_decay_BLH: Float[Array, "B L H"],
    resets_BL: Bool[Array, "B L"],
    state_BHNP: Float[Array, "B H N P"],
    *,
    chunk: int,
) -> tuple[Float[Array, "B L H P"], Float[Array, "B H N P"]]:
    """The gated delta rule (Yang et al. 2024, "Gated Delta Networks", equation 10): what a key already gives is
    replaced by the share beta, not added to. A token with log_decay 0 and beta 0 leaves the state as it was."""
    arrays = (q_BLGN, k_BLGN, *(_grouped(x, k_BLGN) for x in (v_BLHP, beta_BLH, log_decay_BLH)), resets_BL)
    return _ungrouped(*over_chunks(_write_deltas, _grouped_state(state_BHNP, k_BLGN), arrays, chunk), v_BLHP)


def cost(length: int, chunk: int, groups: int, heads: int, n: int, p: int, *, delta: bool = False) -> Cost:
    """The products of `decayed` over `length` tokens, or with `delta` of `decayed_delta`: whole chunks, the half of
    each that is masked too."""
    count, size = balanced(length, chunk)
    scores, states = size * groups * n, heads * n * p
    a_token = scores + size * heads * (p + 1) + 2 * states + (scores + states if delta else 0)
    solves = count * heads * flops(size, p) if delta else 0
    return Cost(flops=2 * count * size * a_token + solves, cache=states)


# ---- inside a chunk: G groups of R heads, tokens t that read and s that are read ---------------------------------


class _Decays(NamedTuple):
    """How much is left of a token or a state."""

    within: jax.Array  # [B G R t s], of token s at token t; 0 where s is later or of another document
    start: jax.Array  # [B t G R], of the state before the chunk at token t
    end: jax.Array  # [B s G R], of token s after the chunk
    whole: jax.Array  # [B G R], of the state before the chunk after it


def _decays(log_decay_BsGR: jax.Array, resets_Bs: jax.Array) -> _Decays:
    document_Bs = jnp.cumsum(resets_Bs, axis=1)  # inside the chunk; 0 is that of the state
    seen_Bts = jnp.tri(resets_Bs.shape[1], dtype=bool) & (document_Bs[:, :, None] == document_Bs[:, None, :])
    # sums inside documents: one over the chunk would let rounding, and so gradients, pass from document to document
    total_BsGR = jnp.einsum("Bts,BsGR->BtGR", seen_Bts.astype(jnp.float32), log_decay_BsGR, precision="highest")
    rows_BGRs = jnp.moveaxis(total_BsGR, 1, -1)
    apart = rows_BGRs[..., :, None] - rows_BGRs[..., None, :]
    first, last = document_Bs == 0, document_Bs == document_Bs[:, -1:]
    return _Decays(
        within=jnp.exp(jnp.where(seen_Bts[:, None, None], apart, -jnp.inf)),
        start=jnp.exp(total_BsGR) * first[..., None, None],
        end=jnp.exp(total_BsGR[:, -1:] - total_BsGR) * last[..., None, None],
        whole=jnp.exp(total_BsGR[:, -1]) * first[:, -1, None, None],
    )


def _write_values(
    state: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, log_decay: jax.Array, resets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _write_and_read(state, q, k, v, _decays(log_decay, resets))


def _write_deltas(
    state: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, beta: jax.Array, log_decay: jax.Array, resets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """u is the solution of (1 + T) u = beta (v - exp(A) S_0^T k), T the strictly lower part of beta_t k_t . k_s decayed
    (the UT transform of Yang et al. 2024, "Parallelizing linear transformers with the delta rule", equation 10)."""
    decays = _decays(log_decay, resets)
    overlap_BGts = _product("BtGN,BsGN->BGts", k, k)
    lower = jnp.tril(overlap_BGts[:, :, None] * decays.within, -1) * jnp.moveaxis(beta, 1, -1)[..., None]
    wanted_BtGRP = (v - _read(k, state) * decays.start[..., None]) * beta[..., None]
    wanted_BGRtP = jnp.moveaxis(wanted_BtGRP, 1, -2)
    u = solve(lower, wanted_BGRtP)
    return _write_and_read(state, q, k, jnp.moveaxis(u, -2, 1).astype(v.dtype), decays)


def _write_and_read(
    state: jax.Array, q: jax.Array, k: jax.Array, u: jax.Array, decays: _Decays
) -> tuple[jax.Array, jax.Array]:
    scores_BGts = _product("BtGN,BsGN->BGts", q, k)
    seen_BGRts = (scores_BGts[:, :, None] * decays.within).astype(u.dtype)
    y = _product("BGRts,BsGRP->BtGRP", seen_BGRts, u) + _read(q, state) * decays.start[..., None]
    left = (u * decays.end[..., None]).astype(u.dtype)
    return state * decays.whole[..., None, None] + _product("BsGN,BsGRP->BGRNP", k, left), y.astype(u.dtype)


def _read(q: jax.Array, state: jax.Array) -> jax.Array:
    return _product("BtGN,BGRNP->BtGRP", q, state.astype(q.dtype))


def _product(form: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(form, a, b, preferred_element_type=jnp.float32)


def _grouped(x_BLH: jax.Array, k_BLGN: jax.Array) -> jax.Array:
    groups = k_BLGN.shape[2]
    return x_BLH.reshape(*x_BLH.shape[:2], groups, -1, *x_BLH.shape[3:])


def _grouped_state(state_BHNP: jax.Array, k_BLGN: jax.Array) -> jax.Array:
    return state_BHNP.reshape(len(state_BHNP), k_BLGN.shape[2], -1, *state_BHNP.shape[2:])


def _ungrouped(y_BLGRP: jax.Array, state_BGRNP: jax.Array, v_BLHP: jax.Array) -> tuple[jax.Array, jax.Array]:
    return y_BLGRP.reshape(v_BLHP.shape), state_BGRNP.reshape(len(v_BLHP), v_BLHP.shape[2], *state_BGRNP.shape[3:])
