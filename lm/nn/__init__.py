"""Layers: each a config (the spec a researcher writes) and the module it builds."""

from lm.nn.attention import Attention, gqa, mha, mqa
from lm.nn.bias import ALiBi, T5Bias
from lm.nn.block import Block, Parallel, PostNorm, PreNorm, Residual, Sandwich, SharedParallel
from lm.nn.cost import Cost
from lm.nn.feedforward import (
    GELU,
    MLP,
    Activation,
    FeedForward,
    GatedMLP,
    ReLU,
    Sigmoid,
    SiLU,
    SquaredReLU,
    geglu,
    glu,
    reglu,
    swiglu,
)
from lm.nn.mask import Mask
from lm.nn.mixer import Mixer
from lm.nn.norms import LayerNorm, Norm, RMSNorm
from lm.nn.positions import AbsolutePosition, Learned, Sinusoidal
from lm.nn.relative import RelativePosition
from lm.nn.rope import LinearScaling, Llama3Scaling, NTKScaling, RoPE, YaRN

__all__ = [
    "GELU", "MLP", "ALiBi", "AbsolutePosition", "Activation", "Attention", "Block", "Cost", "FeedForward", "GatedMLP",
    "LayerNorm", "Learned", "LinearScaling", "Llama3Scaling", "Mask", "Mixer", "NTKScaling", "Norm", "Parallel",
    "PostNorm", "PreNorm", "RMSNorm", "ReLU", "RelativePosition", "Residual", "RoPE", "Sandwich", "SharedParallel",
    "SiLU", "Sigmoid", "Sinusoidal", "SquaredReLU", "T5Bias", "YaRN", "geglu", "glu", "gqa", "mha", "mqa", "reglu",
    "swiglu",
]  # fmt: skip
