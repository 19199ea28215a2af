"""Attention behind one function: the same masks and results on every platform."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import ModuleType

import jax

from lm import sharding
from lm.nn.kernels import attention_blocked, attention_cudnn, attention_mesh, attention_plain, attention_splash
from lm.nn.kernels.attention_request import Bias, KernelError, Request
from lm.nn.kernels.platform import Platform, fast, platform
from lm.nn.mask import Mask
from lm.shapes import Array, Float, Int

IMPLEMENTATIONS: Mapping[str, ModuleType] = {
    "plain": attention_plain,
    "blocked": attention_blocked,
    "cudnn": attention_cudnn,
    "splash": attention_splash,
}

PREFERENCE: Mapping[Platform, tuple[str, ...]] = {
    "cpu": ("blocked",),
    "gpu": ("cudnn", "blocked"),
    "tpu": ("splash", "blocked"),
}


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
    bias: Bias | None = None,
    scale: float,
    softcap: float | None = None,
    ordered: bool = False,
    implementation: str | None = None,
) -> Float[Array, "B L H V"]:
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245): query head h reads key/value head h // (H / K).

    Scores are `scale * q k^T`, capped as `softcap * tanh(scores / softcap)` where a softcap is given, plus `bias`;
    the softmax is in float32. A query that may see no key gives zeros. Values may be of another width than keys.

    bias: from positions to [B or 1, H, L, S] float32; gradients reach what it closes over.
    ordered: the caller's promise that keys are the queries' own rows (L == S), documents are contiguous and |segment|
        never decreases up to trailing zeros, and positions grow inside a document, so that the order of the row is the
        order of positions and kernels that mask by index are right. A reach counts positions, so with `ordered` and a
        mask of limited reach positions inside a document must grow by one.
    implementation: a name of `IMPLEMENTATIONS`; None takes the platform's first that has no objection.

    On a mesh each device reads for its own rows and heads, and where "length" is split for its own part of each row.

    Raises KernelError where the named implementation can't do the mask, or there is none of that name.
    """
    request = request_of(q_BLHP, k_BSKP, v_BSKP, mask=mask, bias=bias, softcap=softcap, ordered=ordered)
    kernel = _kernel(request, implementation)
    with jax.named_scope("attend"):
        return kernel(
            q_BLHP,
            k_BSKP,
            v_BSKP,
            mask=mask,
            q_positions=q_positions,
            k_positions=k_positions,
            q_segments=q_segments,
            k_segments=k_segments,
            bias=bias,
            scale=scale,
            softcap=softcap,
            ordered=ordered,
        )


def _kernel(request: Request, implementation: str | None) -> Callable[..., Array]:
    """What serves the request in the program that is being traced: on a mesh, a form that is split over it."""
    if (where := sharding.in_scope()) is None:
        return IMPLEMENTATIONS[choose(request, implementation)].attend
    split = attention_mesh.split_of(where, request)
    if split.ring and implementation is None and fast(platform()):
        return functools.partial(attention_mesh.attend, split, None)
    split = attention_mesh.split_of(where, request, whole_rows=True) if split.ring else split
    name = choose(split.request, implementation)
    kernel = IMPLEMENTATIONS[name].attend
    if name == "plain" or (name == "blocked" and not split.length):
        return kernel  # the compiler splits it
    return functools.partial(attention_mesh.attend, split, kernel)


def request_of(
    q_BLHP: Array, k_BSKP: Array, v_BSKP: Array, *, mask: Mask, bias: Bias | None, softcap: float | None, ordered: bool
) -> Request:
    """The static facts of a call. Raises KernelError where the shapes don't fit together."""
    (B, L, H, P), (S, K) = q_BLHP.shape, k_BSKP.shape[1:3]
    if k_BSKP.shape != (B, S, K, P) or v_BSKP.shape[:3] != (B, S, K) or H % K:
        shapes = f"q {q_BLHP.shape}, k {k_BSKP.shape}, v {v_BSKP.shape}"
        raise KernelError(f"attention needs q [B, L, H, P], k and v [B, S, K, P] with K dividing H; got {shapes}")
    if ordered and L != S:
        raise KernelError(f"attention was promised ordered rows, but has {L} queries and {S} keys; pass ordered=False")
    return Request(
        mask=mask,
        dtype=q_BLHP.dtype.name,
        batch=B,
        queries=L,
        keys=S,
        heads=H,
        kv_heads=K,
        width=P,
        value_width=v_BSKP.shape[3],
        bias=bias is not None,
        softcap=softcap,
        ordered=ordered,
    )


def choose(request: Request, implementation: str | None = None) -> str:
    """The name of the implementation that serves the request. Raises KernelError as `attend` does."""
    if implementation is None:
        names = PREFERENCE[platform()] if fast(platform()) else ("plain",)
        return next(name for name in names if IMPLEMENTATIONS[name].unsupported(request) is None)
    if implementation not in IMPLEMENTATIONS:
        raise KernelError(f"there is no attention '{implementation}'; there are: {', '.join(IMPLEMENTATIONS)}")
    reason = IMPLEMENTATIONS[implementation].unsupported(request)
    if reason is not None:
        raise KernelError(f"attention '{implementation}' can't do this: {reason}; leave implementation=None to choose")
    return implementation
