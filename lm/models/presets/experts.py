"""Decoders with experts of published shapes.

Mixtral: Jiang et al. 2024, table 1, and the release of 8x22B. Qwen1.5-MoE: its release, March 2024. Qwen2-57B-A14B:
Yang et al. 2024, table 1. Qwen3: Yang et al. 2025, table 2. Granite 3.0: its release, October 2024. DeepSeek-V2-Lite:
DeepSeek-AI 2024, V2, appendix B; DeepSeek-V3: DeepSeek-AI 2024, V3, section 4.2, both with the YaRN scaling that their
released configurations have, V3 without the module that predicts further tokens. DeepSeek-V2 itself limits a softmax's
choice to groups of experts, for which there is no routing here.

The routers' losses are V3's for V3, and `MoE`'s own for all others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lm.config import replace
from lm.models.decoder import Decoder
from lm.models.presets.modern import granite_style, mistral_style, qwen2_style, qwen3_style
from lm.nn.block import Block
from lm.nn.feedforward import FeedForward, swiglu
from lm.nn.mla import MLA
from lm.nn.moe import MoE, SigmoidGated
from lm.nn.norms import RMSNorm
from lm.nn.rope import RoPE, YaRN
from lm.nn.routing import GroupLimit, SigmoidTopK, SoftmaxTopK
from lm.nn.routing_losses import LossFree, SequenceBalance


def with_experts(
    dense: Decoder, experts: int, k: int, *, normalized: bool = True, shared: FeedForward | None = None
) -> Decoder:
    """The feed-forward layer of every block becomes an expert, of which there are so many and k compute a token."""
    routing = SoftmaxTopK(k=k, normalized=normalized)
    return replace(dense, {"block.ff": MoE(expert=dense.block.ff, experts=experts, routing=routing, shared=shared)})  # type: ignore[union-attr]


def deepseek_style(
    width: int,
    layers: int,
    *,
    heads: int,
    q_rank: int | None,
    dense: int,
    hidden: int,
    ff: MoE,
    vocab: int,
    mscale: float,
) -> Decoder:
    """MLA; `dense` layers with a feed-forward part of `hidden`, then layers with experts.

    mscale: how scores grow with YaRN's factor.
    """
    scaling = YaRN(factor=40.0, original_length=4096, mscale=mscale, mscale_all_dim=mscale)
    norm = RMSNorm(epsilon=1e-6)
    widths: dict[str, Any] = {"kv_rank": 512, "nope_width": 128, "rope_width": 64, "value_width": 128}
    mixer = MLA(heads=heads, q_rank=q_rank, position=RoPE(scaling=scaling), norm=norm, **widths)
    first = Block(mixer=mixer, ff=swiglu(hidden), norm=norm)
    block = Block(mixer=mixer, ff=ff, norm=norm)
    rest: dict[str, Any] = {"norm": norm, "tied": False}
    return Decoder(vocab=vocab, width=width, layers=layers, first=(first,) * dense, block=block, **rest)


def _deepseek_v2_lite() -> Decoder:
    ff = MoE(expert=swiglu(1408), experts=64, routing=SoftmaxTopK(k=6, normalized=False), shared=swiglu(2 * 1408))
    heads: dict[str, Any] = {"heads": 16, "q_rank": None, "mscale": 0.707}
    return deepseek_style(2048, 27, dense=1, hidden=10944, ff=ff, vocab=102400, **heads)


def _deepseek_v3() -> Decoder:
    ff = MoE(
        expert=swiglu(2048),
        experts=256,
        routing=SigmoidTopK(k=8, scale=2.5, limit=GroupLimit(groups=8, chosen=4)),
        shared=swiglu(2048),
        losses=(LossFree(weight=1e-3), SequenceBalance(weight=1e-4)),
    )
    heads: dict[str, Any] = {"heads": 128, "q_rank": 1536, "mscale": 1.0}
    return deepseek_style(7168, 61, dense=3, hidden=18432, ff=ff, vocab=129280, **heads)


def _mixtral(width: int, layers: int, **shape: Any) -> Decoder:
    return with_experts(mistral_style(width, layers, kv_heads=8, vocab=32000, base=1e6, **shape), 8, 2)


def _qwen2_moe(width: int, layers: int, experts: int, k: int, *, shared: int, **shape: Any) -> Decoder:
    gated = SigmoidGated(ff=swiglu(shared))
    return with_experts(qwen2_style(width, layers, **shape), experts, k, normalized=False, shared=gated)


def _qwen3_moe(width: int, layers: int, **shape: Any) -> Decoder:
    return with_experts(qwen3_style(width, layers, kv_heads=4, **shape), 128, 8)


def _granite_moe(width: int, layers: int, experts: int, *, heads: int) -> Decoder:
    return with_experts(granite_style(width, layers, heads=heads, hidden=512, logits=6.0, epsilon=1e-6), experts, 8)


EXPERTS: dict[str, Callable[[], Decoder]] = {
    "mixtral-8x7b": partial(_mixtral, 4096, 32, heads=32, hidden=14336),
    "mixtral-8x22b": partial(_mixtral, 6144, 56, heads=48, hidden=16384),
    "qwen1.5-moe-a2.7b": partial(_qwen2_moe, 2048, 24, 60, 4, heads=16, hidden=1408, shared=5632),
    "qwen2-57b-a14b": partial(_qwen2_moe, 3584, 28, 64, 8, heads=28, kv_heads=4, hidden=2560, shared=20480),
    "qwen3-30b-a3b": partial(_qwen3_moe, 2048, 48, heads=32, hidden=768),
    "qwen3-235b-a22b": partial(_qwen3_moe, 4096, 94, heads=64, hidden=1536),
    "granite3-1b-a400m": partial(_granite_moe, 1024, 24, 32, heads=16),
    "granite3-3b-a800m": partial(_granite_moe, 1536, 32, 40, heads=24),
    "deepseek-v2-lite": _deepseek_v2_lite,
    "deepseek-v3": _deepseek_v3,
}
