"""State-space models and their hybrids with attention, of published shapes.

Mamba: Gu and Dao 2023, section 4.2. Mamba-2: Dao and Gu 2024, section 9.2. Bamba: its release, December 2024. Jamba:
Lieber et al. 2024, section 3.1. What the papers leave out is from the configurations released with the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lm.models.decoder import Decoder
from lm.models.stack import grouped
from lm.nn.attention import gqa
from lm.nn.block import Block
from lm.nn.feedforward import swiglu
from lm.nn.mixer import Mixer
from lm.nn.moe import MoE
from lm.nn.norms import RMSNorm
from lm.nn.rope import RoPE
from lm.nn.routing import SoftmaxTopK
from lm.nn.ssm.mamba import Mamba
from lm.nn.ssm.mamba2 import Mamba2


def mamba_style(width: int, layers: int, *, vocab: int = 50280) -> Decoder:
    """Mamba alone in every layer, inside twice the width, tied embeddings."""
    return _mixers(Mamba(), width, layers, vocab)


def mamba2_style(width: int, layers: int, *, vocab: int = 50288) -> Decoder:
    """Mamba-2 alone in every layer, inside twice the width in heads of 64, tied embeddings."""
    return _mixers(Mamba2(heads=2 * width // 64), width, layers, vocab)


def _mixers(mixer: Mixer, width: int, layers: int, vocab: int) -> Decoder:
    norm = RMSNorm(epsilon=1e-5)
    return Decoder(vocab=vocab, width=width, layers=layers, block=Block(mixer=mixer, norm=norm), norm=norm)


def _bamba_9b() -> Decoder:
    """Attention in layers 9, 18 and 27, counted from 0, with RoPE on half of each head."""
    norm, ff = RMSNorm(epsilon=1e-5), swiglu(14336)
    mamba = Block(mixer=Mamba2(heads=128), ff=ff, norm=norm)
    attention = Block(mixer=gqa(32, 8, position=RoPE(fraction=0.5)), ff=ff, norm=norm)
    layers = grouped([attention if i in (9, 18, 27) else mamba for i in range(32)])
    return Decoder(vocab=128256, width=4096, norm=norm, tied=False, **layers)


def _jamba_52b() -> Decoder:
    """Of 8 layers the fifth is attention, without positions, the others Mamba; every other one has experts."""
    norm, ff = RMSNorm(epsilon=1e-6), swiglu(14336)
    moe = MoE(expert=ff, experts=16, routing=SoftmaxTopK(k=2, normalized=False))
    attention, mamba = gqa(32, 8, position=None), Mamba(norm=norm)
    pattern = [Block(mixer=attention if i == 4 else mamba, ff=moe if i % 2 else ff, norm=norm) for i in range(8)]
    return Decoder(vocab=65536, width=4096, layers=32, block=tuple(pattern), norm=norm, tied=False)


STATE_SPACE: dict[str, Callable[[], Decoder]] = {
    "mamba-130m": partial(mamba_style, 768, 24),
    "mamba-370m": partial(mamba_style, 1024, 48),
    "mamba-790m": partial(mamba_style, 1536, 48),
    "mamba-1.4b": partial(mamba_style, 2048, 48),
    "mamba-2.8b": partial(mamba_style, 2560, 64),
    "mamba2-130m": partial(mamba2_style, 768, 24),
    "mamba2-370m": partial(mamba2_style, 1024, 48),
    "mamba2-780m": partial(mamba2_style, 1536, 48),
    "mamba2-1.3b": partial(mamba2_style, 2048, 48),
    "mamba2-2.7b": partial(mamba2_style, 2560, 64),
    "bamba-9b": _bamba_9b,
    "jamba-52b": _jamba_52b,
}
