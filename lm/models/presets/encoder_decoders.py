"""Encoder-decoders of published shapes.

T5: Raffel et al. 2020, 3.7 and its released configurations. T5 v1.1, with gated layers and a head of its own: Shazeer
2020 and the release; FLAN-T5 (Chung et al. 2022) are the same models trained further. BART: Lewis et al. 2020,
section 5, and the configurations released with the weights. Transformer: Vaswani et al. 2017, table 3, whose
projections of attention have no biases, with the 37000 tokens of its English-German vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lm.models.decoder import Decoder
from lm.models.encoder import Encoder
from lm.models.encoder_decoder import EncoderDecoder
from lm.nn.attention import mha
from lm.nn.bias import T5Bias
from lm.nn.block import Block, PostNorm
from lm.nn.cross import cross_attention
from lm.nn.feedforward import GELU, MLP, FeedForward, ReLU, geglu
from lm.nn.mask import Mask
from lm.nn.norms import LayerNorm, RMSNorm
from lm.nn.positions import Learned, Sinusoidal


def t5_style(
    width: int,
    layers: int,
    *,
    heads: int,
    ff: FeedForward,
    head_width: int = 64,
    vocab: int = 32128,
    v1_1: bool = False,
) -> EncoderDecoder:
    """RMSNorm before each part, buckets of relative positions, scores that aren't scaled, no biases.

    v1_1: the head has weights of its own; before, it is the embedding table and logits are scaled.
    """
    attention: dict[str, Any] = {"scale": 1.0, "head_width": None if head_width * heads == width else head_width}

    def both(causal: bool) -> dict[str, Any]:
        mixer = mha(heads, position=T5Bias(bidirectional=not causal), mask=Mask(causal=causal), **attention)
        cross = cross_attention(heads, **attention) if causal else None
        norm = RMSNorm(epsilon=1e-6)
        block = Block(mixer=mixer, cross=cross, ff=ff, norm=norm)
        return {"vocab": vocab, "width": width, "layers": layers, "block": block, "norm": norm, "embed_std": 1.0}

    decoder = Decoder(**both(True), tied=not v1_1, logit_scale=1.0 if v1_1 else width**-0.5)
    return EncoderDecoder(encoder=Encoder(**both(False)), decoder=decoder)


def bart_style(width: int, layers: int, *, heads: int, vocab: int = 50265, length: int = 1024) -> EncoderDecoder:
    """LayerNorm after each part and after the embeddings, biases, GELU, learned positions."""
    norm = LayerNorm(epsilon=1e-5)
    shape = {"norm": norm, "bias": True, "ff": MLP(hidden=4 * width, activation=GELU(approximate=False), bias=True)}
    own = {"position": Learned(length=length), "embed_norm": norm}
    return _post_norm(width, layers, heads, vocab, own, **shape)


def transformer_style(width: int, layers: int, *, heads: int, vocab: int = 37000) -> EncoderDecoder:
    """LayerNorm after each part, ReLU, sinusoidal positions, embeddings scaled by sqrt(width)."""
    ff = MLP(hidden=4 * width, activation=ReLU(), bias=True)
    own = {"position": Sinusoidal(), "embed_scale": None}
    return _post_norm(width, layers, heads, vocab, own, norm=LayerNorm(epsilon=1e-6), bias=False, ff=ff)


def _post_norm(
    width: int,
    layers: int,
    heads: int,
    vocab: int,
    own: dict[str, Any],
    *,
    norm: LayerNorm,
    bias: bool,
    ff: FeedForward,
) -> EncoderDecoder:
    """own: fields of both trunks."""
    biases: dict[str, Any] = {"bias": bias, "output_bias": bias}

    def both(causal: bool) -> dict[str, Any]:
        mixer = mha(heads, position=None, mask=Mask(causal=causal), **biases)
        cross = cross_attention(heads, **biases) if causal else None
        block = Block(mixer=mixer, cross=cross, ff=ff, norm=norm, residual=PostNorm())
        return {"vocab": vocab, "width": width, "layers": layers, "block": block, "norm": None, **own}

    return EncoderDecoder(encoder=Encoder(**both(False)), decoder=Decoder(**both(True)))


def _t5(width: int, layers: int, heads: int, hidden: int, head_width: int = 64) -> EncoderDecoder:
    return t5_style(width, layers, heads=heads, ff=MLP(hidden=hidden, activation=ReLU()), head_width=head_width)


def _t5_v1_1(width: int, layers: int, heads: int, hidden: int) -> EncoderDecoder:
    return t5_style(width, layers, heads=heads, ff=geglu(hidden), v1_1=True)


V1_1 = {
    "small": partial(_t5_v1_1, 512, 8, 6, 1024),
    "base": partial(_t5_v1_1, 768, 12, 12, 2048),
    "large": partial(_t5_v1_1, 1024, 24, 16, 2816),
    "xl": partial(_t5_v1_1, 2048, 24, 32, 5120),
    "xxl": partial(_t5_v1_1, 4096, 24, 64, 10240),
}
ENCODER_DECODERS: dict[str, Callable[[], EncoderDecoder]] = {
    "t5-small": partial(_t5, 512, 6, 8, 2048),
    "t5-base": partial(_t5, 768, 12, 12, 3072),
    "t5-large": partial(_t5, 1024, 24, 16, 4096),
    "t5-3b": partial(_t5, 1024, 24, 32, 16384, head_width=128),
    "t5-11b": partial(_t5, 1024, 24, 128, 65536, head_width=128),
    **{f"t5-v1_1-{size}": made for size, made in V1_1.items()},
    **{f"flan-t5-{size}": made for size, made in V1_1.items()},
    "bart-base": partial(bart_style, 768, 6, heads=12),
    "bart-large": partial(bart_style, 1024, 12, heads=16),
    "transformer-base": partial(transformer_style, 512, 6, heads=8),
    "transformer-big": partial(transformer_style, 1024, 6, heads=16),
}
