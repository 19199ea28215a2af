"""Mixers whose past is a state of fixed size: state spaces and linear attention with decay."""

from lm.nn.ssm.gated_delta import GatedDeltaNet
from lm.nn.ssm.gated_norm import GatedNorm, GateThenNorm, NormThenGate
from lm.nn.ssm.mamba import Mamba
from lm.nn.ssm.mamba2 import Mamba2
from lm.nn.ssm.retention import Retention

__all__ = ["GateThenNorm", "GatedDeltaNet", "GatedNorm", "Mamba", "Mamba2", "NormThenGate", "Retention"]
