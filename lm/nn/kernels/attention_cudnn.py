"""cuDNN's fused attention on NVIDIA GPUs, through `jax.nn.dot_product_attention`.

cuDNN's own variable-length form can't be reached through JAX's public function, so documents are kept apart by a
boolean mask [B, 1, L, S], shared by the heads: B x L x S in the call's 16-bit type is what it costs in memory. The
mask also carries window and pattern; a causal order without a prefix is given to the kernel as well, which then skips
the upper triangle.
"""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp

from lm.nn.kernels.attention_request import Bias, Request
from lm.nn.kernels.platform import platform
from lm.nn.mask import Mask
from lm.shapes import Array, Float, Int

LONGEST = 8192  # beyond it the mask outweighs what fusing saves


def unsupported(request: Request) -> str | None:
    """Why cuDNN can't do this call, or None."""
    if platform() != "gpu":
        return "cuDNN needs an NVIDIA GPU"
    if request.dtype not in ("bfloat16", "float16"):
        return f"cuDNN computes in bfloat16 or float16, not {request.dtype}"
    if not request.ordered:
        return "a query that sees no key would not give zeros, so cuDNN needs ordered rows"
    if request.bias or request.softcap is not None:
        return f"cuDNN has no {'bias that can be trained' if request.bias else 'softcap'} here"
    if request.width != request.value_width:
        return f"cuDNN needs keys and values of one width, not {request.width} and {request.value_width}"
    if request.queries % 2 or request.queries > LONGEST:
        return f"cuDNN with a mask needs an even length up to {LONGEST}, not {request.queries}"
    return _failure(request.dtype, request.heads, request.kv_heads, request.width, not request.mask.sees_later)


@functools.cache
def _failure(dtype: str, heads: int, kv_heads: int, width: int, causal: bool) -> str | None:
    """What goes wrong when cuDNN is asked, forward and backward, for a short row of these heads; None if nothing.

    Compiled once a kind of call: driver, cuDNN version, GPU generation and head width are then known to fit.
    """
    q = jax.ShapeDtypeStruct((1, 128, heads, width), dtype)
    k = jax.ShapeDtypeStruct((1, 128, kv_heads, width), dtype)
    seen = jax.ShapeDtypeStruct((1, 1, 128, 128), bool)

    def loss(q: Array, k: Array, v: Array, seen: Array) -> Array:
        return jnp.sum(_kernel(q, k, v, seen, 1.0, causal), dtype=jnp.float32)

    try:
        jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, k, k, seen).compile()
    except Exception as error:  # the library raises many kinds; each means that it can't be used
        reason = f"cuDNN isn't usable for {heads} heads of width {width} in {dtype}: {str(error).splitlines()[0]}"
        warnings.warn(f"{reason}; attention falls back to 'blocked'", RuntimeWarning, stacklevel=2)
        return reason
    return None


def _kernel(q_BLHP: Array, k_BSKP: Array, v_BSKP: Array, seen_B1LS: Array, scale: float, causal: bool) -> Array:
    return jax.nn.dot_product_attention(
        q_BLHP, k_BSKP, v_BSKP, mask=seen_B1LS, scale=scale, is_causal=causal, implementation="cudnn"
    )


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
    del bias, softcap, ordered
    seen_BLS = mask.allowed(q_positions, k_positions, q_segments, k_segments)
    return _kernel(q_BLHP, k_BSKP, v_BSKP, seen_BLS[:, None], scale, not mask.sees_later)
