"""Dense decoders since 2022: Llama's shape with a few parts changed, and those with parallel blocks or ALiBi before it.

Mistral: Jiang et al. 2023, table 1. Qwen2: Yang et al. 2024, table 1; Qwen1.5 and 2.5: their releases. Qwen3: Yang et
al. 2025, table 1. Gemma: Gemma Team 2024, table 1; Gemma 2: Gemma Team 2024, table 1; Gemma 3 (the text part alone):
Gemma Team 2025, section 2. Granite 3.0: its release, October 2024. GLM-4: Team GLM 2024; ChatGLM2: its release. OLMo 2:
Team OLMo 2025. Phi-3: Abdin et al. 2024, section 2; Phi-4 likewise. Falcon: Almazrouei et al. 2023. BLOOM: Scao et al.
2022. Baichuan: its releases, 2023. LLaDA: Nie et al. 2025, appendix.

What these leave out is from the configurations released with the base models: vocabularies as they are padded, epsilons
of norms, RoPE's base and scaling. GLM's code turns neighbouring pairs of a head, which is the same model with the
channels of queries and keys in another order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from lm.config import replace
from lm.models.decoder import Decoder
from lm.models.presets.decoders import llama_style
from lm.nn.attention import gqa, mha
from lm.nn.bias import ALiBi
from lm.nn.block import Block, OutputNorm, Parallel, Residual, Sandwich, SharedParallel
from lm.nn.feedforward import GELU, MLP
from lm.nn.head_norm import AcrossHeads
from lm.nn.mask import Mask
from lm.nn.norms import LayerNorm, RMSNorm
from lm.nn.rope import LinearScaling, RoPE


def mistral_style(width: int, layers: int, *, window: int | None = None, **shape: Any) -> Decoder:
    """Llama with a window in every layer, where it has one. shape: see `llama_style`."""
    own: dict[str, Any] = {"tied": False, "mask": Mask(window=window)}
    return llama_style(width, layers, **own | shape)


def qwen2_style(width: int, layers: int, **shape: Any) -> Decoder:
    """Llama with biases on queries, keys and values. shape: see `llama_style`."""
    return llama_style(width, layers, **{**QWEN, "bias": True, **shape})


def qwen3_style(width: int, layers: int, **shape: Any) -> Decoder:
    """Llama with heads of 128 whatever the width, and a norm on each query and key. shape: see `llama_style`."""
    return llama_style(width, layers, **{**QWEN, "head_width": 128, "qk_norm": RMSNorm(epsilon=1e-6), **shape})


QWEN: dict[str, Any] = {"vocab": 151936, "tied": False, "epsilon": 1e-6, "base": 1e6}


def gemma_style(width: int, layers: int, **shape: Any) -> Decoder:
    """GeGLU, wide heads, embeddings multiplied by sqrt(width), norms with scales of 1 + w. shape: see `llama_style`."""
    own: dict[str, Any] = {"vocab": 256000, "head_width": 256}
    model = llama_style(width, layers, **own | shape)
    parts = {"block.ff.activation": GELU(approximate=True), "block.norm": GEMMA_NORM, "norm": GEMMA_NORM}
    return replace(model, {**parts, "embed_scale": None})


GEMMA_NORM = RMSNorm(epsilon=1e-6, zero_centered=True)


def gemma2_style(width: int, layers: int, *, scaled_as: int = 256, **shape: Any) -> Decoder:
    """A window in every other layer, norms before and after each part, capped scores and logits.

    scaled_as: scores are divided by the square root of this.
    """
    model = gemma_style(width, layers, **{"softcap": 50.0, "scale": 1 / math.sqrt(scaled_as)} | shape)
    block = replace(model.block, {"residual": Sandwich()})
    local = replace(block, {"mixer.mask.window": 4096})
    return replace(model, {"block": (local, block), "softcap": 30.0})


def gemma3_style(
    width: int, layers: int, *, window: int = 1024, scaled_as: int = 256, vocab: int = 262208, **shape: Any
) -> Decoder:
    """Five layers with a window and RoPE of base 10000 to one without; norms on queries and keys, no caps."""
    own: dict[str, Any] = {"vocab": vocab, "base": 1e6, "qk_norm": GEMMA_NORM, "scale": 1 / math.sqrt(scaled_as)}
    model = gemma_style(width, layers, **own | shape)
    block = replace(model.block, {"residual": Sandwich()})
    local = replace(block, {"mixer.mask.window": window, "mixer.position": RoPE()})
    return replace(model, {"block": (local,) * 5 + (block,)})


def granite_style(width: int, layers: int, *, heads: int, logits: float, **shape: Any) -> Decoder:
    """Llama with muP's multipliers: scores are divided by the head's width, logits by `logits`. shape: as there."""
    own: dict[str, Any] = {"vocab": 49155, "kv_heads": 8, "scale": heads / width}
    model = llama_style(width, layers, heads=heads, **own | shape)
    return replace(model, {"block.residual.scale": 0.22, "embed_scale": 12.0, "logit_scale": 1 / logits})


def olmo2_style(width: int, layers: int, **shape: Any) -> Decoder:
    """Norms on what the parts give, and on queries and keys over all heads together. shape: see `llama_style`."""
    own: dict[str, Any] = {"vocab": 100352, "tied": False, "epsilon": 1e-6, "base": 500000.0}
    own["qk_norm"] = AcrossHeads(norm=RMSNorm(epsilon=1e-6))
    model = llama_style(width, layers, **own | shape)
    return replace(model, {"block.residual": OutputNorm()})


def glm_style(width: int, layers: int, **shape: Any) -> Decoder:
    """Llama with biases on queries, keys and values, and RoPE on half of each head. shape: see `llama_style`."""
    own: dict[str, Any] = {"heads": 32, "kv_heads": 2, "hidden": 13696, "tied": False, "bias": True, "fraction": 0.5}
    return llama_style(width, layers, **own | shape)


def falcon_style(width: int, layers: int, *, heads: int, kv_heads: int, residual: Residual) -> Decoder:
    """Attention and an ungated feed-forward layer in parallel, RoPE, LayerNorm, no other biases."""
    norm = LayerNorm(epsilon=1e-5)
    ff = MLP(hidden=4 * width, activation=GELU(approximate=False))
    block = Block(mixer=gqa(heads, kv_heads), ff=ff, norm=norm, residual=residual)
    return Decoder(vocab=65024, width=width, layers=layers, block=block, norm=norm)


def bloom_style(width: int, layers: int, *, heads: int, vocab: int = 250880) -> Decoder:
    """Pre-norm LayerNorm blocks with biases, GELU (tanh form), ALiBi, and a norm on the embeddings."""
    norm = LayerNorm(epsilon=1e-5)
    mixer = mha(heads, position=ALiBi(), bias=True, output_bias=True)
    ff = MLP(hidden=4 * width, activation=GELU(approximate=True), bias=True)
    block = Block(mixer=mixer, ff=ff, norm=norm)
    return Decoder(vocab=vocab, width=width, layers=layers, block=block, embed_norm=norm, norm=norm)


def baichuan_style(width: int, layers: int, **shape: Any) -> Decoder:
    """Llama with a vocabulary for Chinese. shape: see `llama_style`."""
    return llama_style(width, layers, **{"vocab": 64000, "tied": False, "epsilon": 1e-6} | shape)


def _baichuan_13b() -> Decoder:
    return replace(baichuan_style(5120, 40, heads=40, hidden=13696), {"block.mixer.position": ALiBi()})


def llada_style(width: int, layers: int, **shape: Any) -> Decoder:
    """Llama that sees both sides of a token, to be trained with `MaskedDiffusion`. shape: see `llama_style`."""
    own: dict[str, Any] = {"vocab": 126464, "tied": False, "base": 500000.0, "mask": Mask(causal=False)}
    return llama_style(width, layers, **own | shape)


_mistral = partial(mistral_style, 4096, 32, heads=32, kv_heads=8, hidden=14336)
_wide = partial(qwen2_style, vocab=152064)  # the larger ones, of vocabularies padded further
QWEN2: dict[str, Callable[[], Decoder]] = {
    "0.5b": partial(qwen2_style, 896, 24, heads=14, kv_heads=2, hidden=4864, tied=True),
    "1.5b": partial(qwen2_style, 1536, 28, heads=12, kv_heads=2, hidden=8960, tied=True),
    "7b": partial(_wide, 3584, 28, heads=28, kv_heads=4, hidden=18944),
    "72b": partial(_wide, 8192, 80, heads=64, kv_heads=8, hidden=29568, epsilon=1e-5),
}
_stretched = LinearScaling(factor=8.0)
_phi = partial(mistral_style, kv_heads=10, heads=40, hidden=17920)

MODERN: dict[str, Callable[[], Decoder]] = {
    "mistral-7b": partial(_mistral, vocab=32000, window=4096),
    "mistral-7b-v0.3": partial(_mistral, vocab=32768, base=1e6),
    "qwen1.5-0.5b": partial(qwen2_style, 1024, 24, heads=16, hidden=2816, tied=True),
    "qwen1.5-1.8b": partial(qwen2_style, 2048, 24, heads=16, hidden=5504),
    "qwen1.5-4b": partial(qwen2_style, 2560, 40, heads=20, hidden=6912, base=5e6),
    "qwen1.5-7b": partial(qwen2_style, 4096, 32, heads=32, hidden=11008),
    "qwen1.5-14b": partial(_wide, 5120, 40, heads=40, hidden=13696),
    "qwen1.5-32b": partial(_wide, 5120, 64, heads=40, kv_heads=8, hidden=27392),
    "qwen1.5-72b": partial(_wide, 8192, 80, heads=64, hidden=24576),
    **{f"qwen2-{size}": made for size, made in QWEN2.items()},
    **{f"qwen2.5-{size}": made for size, made in QWEN2.items()},
    "qwen2.5-3b": partial(qwen2_style, 2048, 36, heads=16, kv_heads=2, hidden=11008, tied=True),
    "qwen2.5-14b": partial(_wide, 5120, 48, heads=40, kv_heads=8, hidden=13824, epsilon=1e-5),
    "qwen2.5-32b": partial(_wide, 5120, 64, heads=40, kv_heads=8, hidden=27648, epsilon=1e-5),
    "qwen3-0.6b": partial(qwen3_style, 1024, 28, heads=16, kv_heads=8, hidden=3072, tied=True),
    "qwen3-1.7b": partial(qwen3_style, 2048, 28, heads=16, kv_heads=8, hidden=6144, tied=True),
    "qwen3-4b": partial(qwen3_style, 2560, 36, heads=32, kv_heads=8, hidden=9728, tied=True),
    "qwen3-8b": partial(qwen3_style, 4096, 36, heads=32, kv_heads=8, hidden=12288),
    "qwen3-14b": partial(qwen3_style, 5120, 40, heads=40, kv_heads=8, hidden=17408),
    "qwen3-32b": partial(qwen3_style, 5120, 64, heads=64, kv_heads=8, hidden=25600),
    "gemma-2b": partial(gemma_style, 2048, 18, heads=8, kv_heads=1, hidden=16384),
    "gemma-7b": partial(gemma_style, 3072, 28, heads=16, hidden=24576),
    "gemma2-2b": partial(gemma2_style, 2304, 26, heads=8, kv_heads=4, hidden=9216),
    "gemma2-9b": partial(gemma2_style, 3584, 42, heads=16, kv_heads=8, hidden=14336),
    "gemma2-27b": partial(gemma2_style, 4608, 46, heads=32, kv_heads=16, hidden=36864, head_width=128, scaled_as=144),
    "gemma3-1b": partial(gemma3_style, 1152, 26, heads=4, kv_heads=1, hidden=6912, vocab=262144, window=512),
    "gemma3-4b": partial(gemma3_style, 2560, 34, heads=8, kv_heads=4, hidden=10240, scaling=_stretched),
    "gemma3-12b": partial(gemma3_style, 3840, 48, heads=16, kv_heads=8, hidden=15360, scaling=_stretched),
    "gemma3-27b": partial(
        gemma3_style, 5376, 62, heads=32, kv_heads=16, hidden=21504, head_width=128, scaled_as=168, scaling=_stretched
    ),
    "granite3-2b": partial(granite_style, 2048, 40, heads=32, hidden=8192, logits=8.0),
    "granite3-8b": partial(granite_style, 4096, 40, heads=32, hidden=12800, logits=16.0),
    "glm4-9b": partial(glm_style, 4096, 40, vocab=151552, epsilon=1.5625e-7),
    "chatglm2-6b": partial(glm_style, 4096, 28, vocab=65024),
    "olmo2-1b": partial(olmo2_style, 2048, 16, heads=16, hidden=8192),
    "olmo2-7b": partial(olmo2_style, 4096, 32, heads=32, hidden=11008),
    "olmo2-13b": partial(olmo2_style, 5120, 40, heads=40, hidden=13824),
    "olmo2-32b": partial(olmo2_style, 5120, 64, heads=40, kv_heads=8, hidden=27648),
    "phi3-mini": partial(mistral_style, 3072, 32, heads=32, hidden=8192, vocab=32064, window=2047),
    "phi3-medium": partial(_phi, 5120, 40, vocab=32064, window=2047),
    "phi4": partial(_phi, 5120, 40, vocab=100352, base=250000.0),
    "falcon-7b": partial(falcon_style, 4544, 32, heads=71, kv_heads=1, residual=SharedParallel()),
    "falcon-40b": partial(falcon_style, 8192, 60, heads=128, kv_heads=8, residual=Parallel()),
    "bloom-560m": partial(bloom_style, 1024, 24, heads=16),
    "bloom-1.1b": partial(bloom_style, 1536, 24, heads=16),
    "bloom-1.7b": partial(bloom_style, 2048, 24, heads=16),
    "bloom-3b": partial(bloom_style, 2560, 30, heads=32),
    "bloom-7.1b": partial(bloom_style, 4096, 30, heads=32),
    "bloom-176b": partial(bloom_style, 14336, 70, heads=112),
    "baichuan-7b": partial(baichuan_style, 4096, 32, heads=32, hidden=11008),
    "baichuan-13b": _baichuan_13b,
    "llada-8b": partial(llada_style, 4096, 32, heads=32, hidden=12288),
}
