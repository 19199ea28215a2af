"""Decoders of published shapes, and a ladder of small ones, from 0.3M to 8B parameters.

GPT-2: Radford et al. 2019, table 2. Pythia: Biderman et al. 2023, table 1 (14m and 31m were released later).
Llama 1: Touvron et al. 2023, table 2, and Llama 2 likewise. Llama 3 and 3.1: Dubey et al. 2024, table 3. Llama 3.2: its
release, September 2024. TinyLlama: Zhang et al. 2024. What the papers leave out (GPT-2's heads, Pythia's padded
vocabularies, epsilons of norms, RoPE scaling) is from the configurations released with the weights, and the numbers of
parameters equal those of the released weights.

`ladder-*` are ours: Llama blocks, bytes as tokens, width = 32 x layers throughout, so that non-embedding parameters,
which name the size, grow as the cube of the depth. For another tokenizer: `replace(preset(name), {"vocab": 50257})`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lm.models.decoder import Decoder
from lm.nn.attention import gqa, mha
from lm.nn.block import Block, Parallel, PreNorm
from lm.nn.feedforward import GELU, MLP, swiglu
from lm.nn.norms import LayerNorm, RMSNorm
from lm.nn.positions import Learned
from lm.nn.rope import Llama3Scaling, RoPE, RoPEScaling


def gpt2_style(
    width: int, layers: int, *, heads: int, vocab: int = 50257, length: int = 1024, head_width: int | None = None
) -> Decoder:
    """Pre-norm LayerNorm blocks with biases, GELU (tanh form), `length` learned positions, tied embeddings."""
    return Decoder(
        vocab=vocab,
        width=width,
        layers=layers,
        block=Block(
            mixer=mha(heads, head_width=head_width, position=None, bias=True, output_bias=True),
            ff=MLP(hidden=4 * width, activation=GELU(approximate=True), bias=True),
            norm=LayerNorm(epsilon=1e-5),
            residual=PreNorm(),
        ),
        position=Learned(length=length),
        norm=LayerNorm(epsilon=1e-5),
        tied=True,
    )


def pythia_style(width: int, layers: int, *, heads: int, vocab: int = 50304) -> Decoder:
    """GPT-NeoX: attention and feed-forward in parallel, RoPE on a quarter of each head, GELU (exact), untied."""
    return Decoder(
        vocab=vocab,
        width=width,
        layers=layers,
        block=Block(
            mixer=mha(heads, position=RoPE(base=10000.0, fraction=0.25), bias=True, output_bias=True),
            ff=MLP(hidden=4 * width, activation=GELU(approximate=False), bias=True),
            norm=LayerNorm(epsilon=1e-5),
            residual=Parallel(),
        ),
        norm=LayerNorm(epsilon=1e-5),
        tied=False,
    )


def llama_style(
    width: int,
    layers: int,
    *,
    heads: int,
    kv_heads: int | None = None,
    hidden: int | None = None,
    vocab: int = 256,
    tied: bool = True,
    epsilon: float = 1e-5,
    base: float = 10000.0,
    scaling: RoPEScaling | None = None,
    fraction: float = 1.0,
    head_width: int | None = None,
    **attention: Any,
) -> Decoder:
    """Pre-norm RMSNorm blocks with SwiGLU and RoPE, no biases.

    kv_heads None: as many as heads. hidden None: 8/3 width, rounded up to a multiple of 32, which gives the
    feed-forward layer about the parameters of an ungated one of 4 width (Shazeer 2020, section 2). base, scaling and
    fraction: of RoPE. attention: other fields of `Attention`, for the many models that differ from Llama in these.
    """
    if hidden is None:
        hidden = -(-8 * width // (3 * 32)) * 32
    own_width = None if head_width is None or head_width * heads == width else head_width
    position = RoPE(base=base, fraction=fraction, scaling=scaling)
    mixer = gqa(heads, kv_heads or heads, head_width=own_width, position=position, **attention)
    norm = RMSNorm(epsilon=epsilon)
    return Decoder(
        vocab=vocab,
        width=width,
        layers=layers,
        block=Block(mixer=mixer, ff=swiglu(hidden), norm=norm, residual=PreNorm()),
        norm=norm,
        tied=tied,
    )


def _llama2_style(width: int, layers: int, *, heads: int, kv_heads: int, hidden: int, epsilon: float) -> Decoder:
    return llama_style(
        width, layers, heads=heads, kv_heads=kv_heads, hidden=hidden, vocab=32000, tied=False, epsilon=epsilon
    )


def _llama3_style(
    width: int, layers: int, *, heads: int, hidden: int, tied: bool, stretch: float | None = None
) -> Decoder:
    """stretch: the factor of Llama-3.1's RoPE scaling, over the 8192 tokens of the first training phase."""
    scaling = None if stretch is None else Llama3Scaling(factor=stretch, original_length=8192)
    shape = partial(llama_style, width, layers, heads=heads, kv_heads=8, hidden=hidden)
    return shape(vocab=128256, tied=tied, base=500000.0, scaling=scaling)


DECODERS: dict[str, Callable[[], Decoder]] = {
    "ladder-0.3m": partial(llama_style, 96, 3, heads=3),
    "ladder-0.8m": partial(llama_style, 128, 4, heads=4),
    "ladder-1.5m": partial(llama_style, 160, 5, heads=5),
    "ladder-2.7m": partial(llama_style, 192, 6, heads=6),
    "ladder-6m": partial(llama_style, 256, 8, heads=8),
    "ladder-12m": partial(llama_style, 320, 10, heads=10),
    "ladder-21m": partial(llama_style, 384, 12, heads=6),
    "ladder-50m": partial(llama_style, 512, 16, heads=8),
    "ladder-100m": partial(llama_style, 640, 20, heads=10),
    "ladder-170m": partial(llama_style, 768, 24, heads=12),
    "ladder-400m": partial(llama_style, 1024, 32, heads=16),
    "gpt2-124m": partial(gpt2_style, 768, 12, heads=12),
    "gpt2-355m": partial(gpt2_style, 1024, 24, heads=16),
    "gpt2-774m": partial(gpt2_style, 1280, 36, heads=20),
    "gpt2-1.5b": partial(gpt2_style, 1600, 48, heads=25),
    "pythia-14m": partial(pythia_style, 128, 6, heads=4),
    "pythia-31m": partial(pythia_style, 256, 6, heads=8),
    "pythia-70m": partial(pythia_style, 512, 6, heads=8),
    "pythia-160m": partial(pythia_style, 768, 12, heads=12),
    "pythia-410m": partial(pythia_style, 1024, 24, heads=16),
    "pythia-1b": partial(pythia_style, 2048, 16, heads=8),
    "pythia-1.4b": partial(pythia_style, 2048, 24, heads=16),
    "pythia-2.8b": partial(pythia_style, 2560, 32, heads=32),
    "pythia-6.9b": partial(pythia_style, 4096, 32, heads=32, vocab=50432),
    "tinyllama-1.1b": partial(_llama2_style, 2048, 22, heads=32, kv_heads=4, hidden=5632, epsilon=1e-5),
    "llama-7b": partial(_llama2_style, 4096, 32, heads=32, kv_heads=32, hidden=11008, epsilon=1e-6),
    "llama2-7b": partial(_llama2_style, 4096, 32, heads=32, kv_heads=32, hidden=11008, epsilon=1e-5),
    "llama3-8b": partial(_llama3_style, 4096, 32, heads=32, hidden=14336, tied=False),
    "llama3.1-8b": partial(_llama3_style, 4096, 32, heads=32, hidden=14336, tied=False, stretch=8.0),
    "llama3.2-1b": partial(_llama3_style, 2048, 16, heads=32, hidden=8192, tied=True, stretch=32.0),
    "llama3.2-3b": partial(_llama3_style, 3072, 28, heads=24, hidden=8192, tied=True, stretch=32.0),
}
