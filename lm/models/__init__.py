"""Architectures from layers."""

from lm.models.decoder import Cache, Decoder, DecoderModel
from lm.models.execution import Execution

__all__ = ["Cache", "Decoder", "DecoderModel", "Execution"]
