"""Attention as its definition: the reference that every other kernel is tested against."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lm.nn.kernels.attention_request import Bias, Request
from lm.nn.mask import Mask
from lm.shapes import Array, Float, Int

MASKED = -1e30  # finite, so that a query that sees no key gives no NaN


def unsupported(request: Request) -> str | None:
    """Nothing: the definition does every mask."""
    del request
    return None


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
    """softmax(q k^T) v with the whole B x H x L x S in memory. Arguments: `attention.attend`."""
    del ordered
    B, L, H, _ = q_BLHP.shape
    S, K = k_BSKP.shape[1:3]
    probs_BHLS = probabilities(
        q_BLHP,
        k_BSKP,
        mask=mask,
        q_positions=q_positions,
        k_positions=k_positions,
        q_segments=q_segments,
        k_segments=k_segments,
        bias=bias,
        scale=scale,
        softcap=softcap,
    )
    probs_BKGLS = probs_BHLS.reshape(B, K, H // K, L, S)
    out_BLKGP = jnp.einsum("BKGLS,BSKP->BLKGP", probs_BKGLS.astype(v_BSKP.dtype), v_BSKP)
    return out_BLKGP.reshape(B, L, H, -1).astype(q_BLHP.dtype)


def probabilities(
    q_BLHP: Float[Array, "B L H P"],
    k_BSKP: Float[Array, "B S K P"],
    *,
    mask: Mask,
    q_positions: Int[Array, "B L"],
    k_positions: Int[Array, "B S"],
    q_segments: Int[Array, "B L"],
    k_segments: Int[Array, "B S"],
    bias: Bias | None,
    scale: float,
    softcap: float | None,
) -> Float[Array, "B H L S"]:
    """softmax(q k^T) in float32: how much of each key a query reads, 0 of keys it may not see."""
    B, L, H, P = q_BLHP.shape
    S, K = k_BSKP.shape[1:3]
    q_BLKGP = q_BLHP.reshape(B, L, K, H // K, P)
    scores_BKGLS = scale * jnp.einsum("BLKGP,BSKP->BKGLS", q_BLKGP, k_BSKP, preferred_element_type=jnp.float32)
    if softcap is not None:
        scores_BKGLS = softcap * jnp.tanh(scores_BKGLS / softcap)
    if bias is not None:
        scores_BKGLS += bias(q_positions, k_positions).reshape(-1, K, H // K, L, S)
    seen_BLS = mask.allowed(q_positions, k_positions, q_segments, k_segments)
    seen = seen_BLS[:, None, None]
    probs_BKGLS = jnp.where(seen, jax.nn.softmax(jnp.where(seen, scores_BKGLS, MASKED)), 0.0)
    return probs_BKGLS.reshape(B, H, L, S)
