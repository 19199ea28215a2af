"""Architectures from layers."""

from lm.models.decoder import Decoder, DecoderModel, as_decoder
from lm.models.electra import Electra, ElectraModel
from lm.models.encoder import Encoder, EncoderModel
from lm.models.encoder_decoder import EncoderDecoder, EncoderDecoderModel
from lm.models.execution import Execution
from lm.models.headed import Headed, HeadedModel
from lm.models.heads import Classifier, Embedding, First, Last, MaskedLM, Mean
from lm.models.model import Cache, Hidden, Model
from lm.models.multi_token import MTP, MTPModel

__all__ = [
    "MTP", "Cache", "Classifier", "Decoder", "DecoderModel", "Electra", "ElectraModel", "Embedding", "Encoder",
    "EncoderDecoder", "EncoderDecoderModel", "EncoderModel", "Execution", "First", "Headed", "HeadedModel", "Hidden",
    "Last", "MTPModel", "MaskedLM", "Mean", "Model", "as_decoder",
]  # fmt: skip
