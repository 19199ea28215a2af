"""Decoders that made history, of published shapes: GPT, GPT-J and GPT-NeoX, GPT-3, Gopher and Chinchilla, PaLM.

GPT: Radford et al. 2018, section 4.1. GPT-3: Brown et al. 2020, table 2.1. GPT-J: Wang and Komatsuzaki 2021. GPT-NeoX:
Black et al. 2022, section 2. Gopher: Rae et al. 2021, table 1. Chinchilla: Hoffmann et al. 2022, table 4. PaLM:
Chowdhery et al. 2022, section 2 and table 1.

Where these aren't what was trained:

- GPT-3's layers alternate between dense attention and bands whose width isn't published; here all are dense. Its
  table gives the 1.3B model 24 heads of 128, which would make 1.5B parameters; 16 heads make 1.3B.
- Gopher and Chinchilla have the relative positions of Transformer-XL (Dai et al. 2019), which score them against the
  query by a matrix of width^2 in every layer. Here it is RoPE, and that matrix is missing from the parameters. What
  the papers don't say, biases and the activation, is GPT-2's.
- PaLM's epsilon isn't published.
- GPT-J's code turns neighbouring pairs of a head, which is the same model with the channels of queries and keys in
  another order.

ChatGLM-6B isn't here: its rotary positions have two coordinates and its residual form weighs the normalised input.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lm.config import replace
from lm.models.decoder import Decoder
from lm.models.presets.decoders import gpt2_style, pythia_style
from lm.nn.attention import mha, mqa
from lm.nn.block import Block, PostNorm, SharedParallel
from lm.nn.feedforward import GELU, MLP, swiglu
from lm.nn.norms import LayerNorm, RMSNorm


def gpt1_style(width: int, layers: int, *, heads: int, vocab: int = 40478, length: int = 512) -> Decoder:
    """GPT-2 with norms after each part and none at the end."""
    after = gpt2_style(width, layers, heads=heads, vocab=vocab, length=length)
    return replace(after, {"block.residual": PostNorm(), "norm": None})


def neox_style(width: int, layers: int, *, heads: int, vocab: int = 50432) -> Decoder:
    """Pythia with GELU in its tanh form."""
    return replace(pythia_style(width, layers, heads=heads, vocab=vocab), {"block.ff.activation": GELU()})


def gptj_style(width: int, layers: int, *, heads: int, vocab: int = 50400) -> Decoder:
    """Attention without biases and a feed-forward layer in parallel after one norm; a head with a bias."""
    alike = neox_style(width, layers, heads=heads, vocab=vocab)
    bare = {"block.mixer.bias": False, "block.mixer.output_bias": False}
    return replace(alike, {**bare, "block.residual": SharedParallel(), "head_bias": True})


def gopher_style(width: int, layers: int, *, heads: int, vocab: int = 32000) -> Decoder:
    """Pre-norm RMSNorm blocks with biases, GELU, RoPE, tied embeddings."""
    norm = RMSNorm()
    ff = MLP(hidden=4 * width, activation=GELU(), bias=True)
    block = Block(mixer=mha(heads, bias=True, output_bias=True), ff=ff, norm=norm)
    return Decoder(vocab=vocab, width=width, layers=layers, block=block, norm=norm)


def palm_style(width: int, layers: int, *, heads: int, vocab: int = 256000) -> Decoder:
    """MQA with heads of 256 and SwiGLU in parallel after one norm, RoPE, no biases, tied embeddings.

    Embeddings start at a variance of 1 and logits are divided by sqrt(width) (section 5).
    """
    norm = LayerNorm(epsilon=1e-6, bias=False)
    mixer = mqa(heads, head_width=None if 256 * heads == width else 256)
    return Decoder(
        vocab=vocab,
        width=width,
        layers=layers,
        block=Block(mixer=mixer, ff=swiglu(4 * width), norm=norm, residual=SharedParallel()),
        norm=norm,
        embed_std=1.0,
        logit_scale=width**-0.5,
    )


_gpt3 = partial(gpt2_style, length=2048)

HISTORY: dict[str, Callable[[], Decoder]] = {
    "gpt1": partial(gpt1_style, 768, 12, heads=12),
    "gptj-6b": partial(gptj_style, 4096, 28, heads=16),
    "gptneox-20b": partial(neox_style, 6144, 44, heads=64),
    "gpt3-125m": partial(_gpt3, 768, 12, heads=12),
    "gpt3-350m": partial(_gpt3, 1024, 24, heads=16),
    "gpt3-760m": partial(_gpt3, 1536, 24, heads=16),
    "gpt3-1.3b": partial(_gpt3, 2048, 24, heads=16),
    "gpt3-2.7b": partial(_gpt3, 2560, 32, heads=32),
    "gpt3-6.7b": partial(_gpt3, 4096, 32, heads=32),
    "gpt3-13b": partial(_gpt3, 5140, 40, heads=40, head_width=128),
    "gpt3-175b": partial(_gpt3, 12288, 96, heads=96),
    "gopher-44m": partial(gopher_style, 512, 8, heads=16),
    "gopher-117m": partial(gopher_style, 768, 12, heads=12),
    "gopher-417m": partial(gopher_style, 1536, 12, heads=12),
    "gopher-1.4b": partial(gopher_style, 2048, 24, heads=16),
    "gopher-7.1b": partial(gopher_style, 4096, 32, heads=32),
    "gopher-280b": partial(gopher_style, 16384, 80, heads=128),
    "chinchilla-70b": partial(gopher_style, 8192, 80, heads=64),
    "palm-8b": partial(palm_style, 4096, 32, heads=16),
    "palm-62b": partial(palm_style, 8192, 64, heads=32),
    "palm-540b": partial(palm_style, 18432, 118, heads=48),
}
