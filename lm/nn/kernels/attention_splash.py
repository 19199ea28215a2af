"""Splash attention, the fused block-sparse Pallas kernel for TPU that ships with JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lm.nn.kernels.attention_request import Bias, Request
from lm.nn.kernels.platform import platform
from lm.nn.mask import Mask
from lm.shapes import Array, Float, Int

LANES = 128  # the kernel's smallest block


def unsupported(request: Request) -> str | None:
    """Why splash attention can't do this call, or None. Off a TPU it is interpreted: right, and very slow."""
    if not request.ordered:
        return "splash attention masks by index in the row, so it needs ordered rows"
    if request.mask.prefix or request.mask.sinks or request.mask.pattern is not None:
        return "splash attention masks by index in the row, and prefix, sinks and pattern count from a document's start"
    if request.bias:
        return "splash attention has no bias"
    if request.queries % LANES:
        return f"splash attention needs a length divisible by {LANES}, not {request.queries}"
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
    """Fused attention of a supported call. Arguments: `attention.attend`."""
    del q_positions, k_positions, bias, ordered
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    L, H = q_BLHP.shape[1:3]
    block = next(size for size in (512, 256, LANES) if L % size == 0)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([_by_index(mask, L)] * H),
        block_sizes=splash.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        attn_logits_soft_cap=softcap,
        head_shards=1,
        q_seq_shards=1,
        interpret=platform() != "tpu",
    )

    def row(q_LHP: Array, k_SKP: Array, v_SKP: Array, q_segments_L: Array, k_segments_S: Array) -> Array:
        heads_first = (x.swapaxes(0, 1) for x in (q_LHP, k_SKP, v_SKP))
        out_HLP: Any = kernel(*heads_first, splash.SegmentIds(abs(q_segments_L), abs(k_segments_S)))
        return out_HLP.swapaxes(0, 1)

    scaled = (q_BLHP * jnp.float32(scale)).astype(q_BLHP.dtype)
    return jax.vmap(row)(scaled, k_BSKP, v_BSKP, q_segments, k_segments).astype(q_BLHP.dtype)


def _by_index(mask: Mask, length: int):
    """The mask of an ordered row as the kernel's own lazy value, from which it learns the blocks to skip."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape = (length, length)
    if mask.window is not None:
        back = mask.window - 1
        return splash.LocalMask(shape, window_size=(back, 0 if mask.causal else back), offset=0)
    return splash.CausalMask(shape) if mask.causal else splash.FullMask(shape)
