"""Decoders with experts of published shapes.

Mixtral: Jiang et al. 2024, table 1, and the release of 8x22B. Qwen1.5-MoE: its release, March 2024. Qwen2-57B-A14B: Yang
et al. 2024, table 1. Qwen3: Yang et al. 2025, table 2. Granite 3.0: its release, October 2024. DeepSeek-V2-Lite:
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
from lm.models.presets.decoders import llama_style
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
    width: int, layers: int, *, heads: int, q_rank: int | None, dense: int, hidden: int, ff: MoE, vocab: int, mscale: float
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
