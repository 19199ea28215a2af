"""Layers: each a config (the spec a researcher writes) and the module it builds."""

from lm.nn.attention import Attention, gqa, mha, mqa
from lm.nn.aux import Aux
from lm.nn.bias import ALiBi, T5Bias
from lm.nn.block import Block, OutputNorm, Parallel, Plain, PostNorm, PreNorm, Residual, Sandwich, SharedParallel
from lm.nn.context import BagOfWords, Direct, FixedWindow
from lm.nn.cost import Cost
from lm.nn.cross import Context, Cross, cross_attention
from lm.nn.differential import Differential
from lm.nn.dispatch import Capacity, Dense, Dispatch, Dropless, FixedCapacity
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
    Tanh,
    geglu,
    glu,
    reglu,
    swiglu,
)
from lm.nn.head_norm import AcrossHeads
from lm.nn.mask import Mask
from lm.nn.mixer import Mixer
from lm.nn.mla import MLA
from lm.nn.moe import MoE, SigmoidGated
from lm.nn.norms import LayerNorm, Norm, RMSNorm
from lm.nn.positions import AbsolutePosition, Learned, Sinusoidal
from lm.nn.recurrent import GRU, LSTM
from lm.nn.relative import RelativePosition
from lm.nn.rope import (
    DynamicNTK,
    LinearScaling,
    Llama3Scaling,
    LongRoPE,
    NTKScaling,
    ProportionalScaling,
    RoPE,
    YaRN,
)
from lm.nn.routing import ExpertChoice, GroupLimit, Hash, Routing, SigmoidTopK, SoftmaxTopK, switch
from lm.nn.routing_losses import LoadBalance, LossFree, RouterZ, RoutingLoss, SequenceBalance
from lm.nn.sparse import BlockSparse, Fixed, Sparse, Strided
from lm.nn.ssm import GatedDeltaNet, GatedNorm, GateThenNorm, Mamba, Mamba2, NormThenGate, Retention

__all__ = [
    "GELU", "GRU", "LSTM", "MLA", "MLP", "ALiBi", "AbsolutePosition", "AcrossHeads", "Activation", "Attention", "Aux",
    "BagOfWords", "Block", "BlockSparse", "Capacity", "Context", "Cost", "Cross", "Dense", "Differential", "Direct",
    "Dispatch", "Dropless", "DynamicNTK", "ExpertChoice", "FeedForward", "Fixed", "FixedCapacity", "FixedWindow",
    "GateThenNorm", "GatedDeltaNet", "GatedMLP", "GatedNorm", "GroupLimit", "Hash", "LayerNorm", "Learned",
    "LinearScaling", "Llama3Scaling", "LoadBalance", "LongRoPE", "LossFree", "Mamba", "Mamba2", "Mask", "Mixer",
    "MoE", "NTKScaling", "Norm", "NormThenGate", "OutputNorm", "Parallel", "Plain", "PostNorm", "PreNorm",
    "ProportionalScaling", "RMSNorm", "ReLU", "RelativePosition", "Residual", "Retention", "RoPE", "RouterZ",
    "Routing", "RoutingLoss", "Sandwich", "SequenceBalance", "SharedParallel", "SiLU", "Sigmoid", "SigmoidGated",
    "SigmoidTopK", "Sinusoidal", "SoftmaxTopK", "Sparse", "SquaredReLU", "Strided", "T5Bias", "Tanh", "YaRN",
    "cross_attention", "geglu", "glu", "gqa", "mha", "mqa", "reglu", "swiglu", "switch",
]  # fmt: skip
