"""Attention of few queries to a cache that lies in parts, each with keys as columns.

The scores of all parts share one maximum and one sum, so the result is that of the softmax over the parts joined, but
nothing is joined: the large part is read where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.nn.kernels import attention
from lm.nn.kernels.attention_plain import MASKED
from lm.nn.kernels.attention_request import Bias
from lm.nn.kernels.platform import fast
from lm.nn.mask import Mask
from lm.shapes import Array, Float, Int

FEW = 8  # queries of a row; more are a prompt, for which the kernels of training are better


class Slots(NamedTuple):
    """Keys and values, with the positions and segments that masks ask for. Segment 0: empty.

    Keys are columns: one query's scores are then sums over rows that lie together in memory.
    """

    k: jax.Array  # [B K P S]
    v: jax.Array  # [B K S P]
    positions: jax.Array  # [B S]
    segments: jax.Array  # [B S]

    @property
    def count(self) -> int:
        return self.positions.shape[1]


def attend(
    q_BLHP: Float[Array, "B L H P"],
    parts: Sequence[Slots],
    *,
    mask: Mask,
    q_positions: Int[Array, "B L"],
    q_segments: Int[Array, "B L"],
    bias: Bias | None = None,
    scale: float,
    softcap: float | None = None,
    by_parts: bool | None = None,
) -> Float[Array, "B L H V"]:
    """What `attention.attend` gives for the parts joined, with the same arguments.

    by_parts: True for the form of this file; False to join the parts and call `attention.attend`; None chooses: by
    parts for few queries on CPU.
    """
    if by_parts is None:
        by_parts = q_BLHP.shape[1] <= FEW and fast("cpu")
    if by_parts:
        return _by_parts(q_BLHP, parts, mask, q_positions, q_segments, bias, scale, softcap)
    return attention.attend(
        q_BLHP,
        jnp.concatenate([part.k for part in parts], axis=3).transpose(0, 3, 1, 2),
        jnp.concatenate([part.v for part in parts], axis=2).swapaxes(1, 2),
        mask=mask,
        q_positions=q_positions,
        k_positions=jnp.concatenate([part.positions for part in parts], axis=1),
        q_segments=q_segments,
        k_segments=jnp.concatenate([part.segments for part in parts], axis=1),
        bias=bias,
        scale=scale,
        softcap=softcap,
    )


def _by_parts(
    q_BLHP: Array,
    parts: Sequence[Slots],
    mask: Mask,
    q_positions: Array,
    q_segments: Array,
    bias: Bias | None,
    scale: float,
    softcap: float | None,
) -> Array:
    B, L, H, P = q_BLHP.shape
    K = parts[0].k.shape[1]
    G = H // K
    # the queries that share a key/value head are the rows of one product with it
    q_BKNP = q_BLHP.reshape(B, L, K, G, P).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, P)

    def scores(part: Slots) -> Array:
        found = scale * jnp.einsum("BKNP,BKPS->BKNS", q_BKNP, part.k, preferred_element_type=jnp.float32)
        found = found.reshape(B, K, G, L, -1)
        if softcap is not None:
            found = softcap * jnp.tanh(found / softcap)
        if bias is not None:
            found += bias(q_positions, part.positions).reshape(-1, *found.shape[1:])
        seen_BLS = mask.allowed(q_positions, part.positions, q_segments, part.segments)
        return jnp.where(seen_BLS[:, None, None], found, MASKED)

    each = [scores(part) for part in parts]
    top = jnp.max(jnp.stack([jnp.max(s, axis=-1) for s in each]), axis=0)[..., None]
    top = jnp.maximum(top, MASKED / 2)  # so exp(MASKED - top) is 0 where nothing is seen
    total, summed = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)
    for part, score in zip(parts, each, strict=True):
        mass = jnp.exp(score - top)
        total += jnp.sum(mass, axis=-1, keepdims=True)
        rows_BKNS = mass.astype(part.v.dtype).reshape(B, K, G * L, -1)
        found = jnp.einsum("BKNS,BKSP->BKNP", rows_BKNS, part.v, preferred_element_type=jnp.float32)
        summed += found.reshape(B, K, G, L, -1)
    out_BKGLP = summed / jnp.maximum(total, 0.5)  # at least 1 where anything is seen
    return out_BKGLP.transpose(0, 3, 1, 2, 4).reshape(B, L, H, -1).astype(q_BLHP.dtype)
