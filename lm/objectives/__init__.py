"""Pretraining objectives."""

from lm.objectives.blank_infilling import BlankInfilling
from lm.objectives.denoising import (
    Denoising,
    DocumentRotation,
    Noise,
    SentencePermutation,
    TextInfilling,
    TokenDeletion,
    TokenMasking,
)
from lm.objectives.masked import Masked
from lm.objectives.masked_diffusion import MaskedDiffusion
from lm.objectives.mixture import Denoiser, Mixture, ul2
from lm.objectives.multi_token import MultiToken
from lm.objectives.next_token import NextToken
from lm.objectives.objective import Batch, Objective, Sums
from lm.objectives.pairs import Pairs
from lm.objectives.prefix_lm import PrefixLM
from lm.objectives.prepared import Prepared, prepared, shapes
from lm.objectives.replaced_tokens import ReplacedTokens
from lm.objectives.span_corruption import SpanCorruption

__all__ = [
    "Batch",
    "BlankInfilling",
    "Denoiser",
    "Denoising",
    "DocumentRotation",
    "Masked",
    "MaskedDiffusion",
    "Mixture",
    "MultiToken",
    "NextToken",
    "Noise",
    "Objective",
    "Pairs",
    "PrefixLM",
    "Prepared",
    "ReplacedTokens",
    "SentencePermutation",
    "SpanCorruption",
    "Sums",
    "TextInfilling",
    "TokenDeletion",
    "TokenMasking",
    "prepared",
    "shapes",
    "ul2",
]  # fmt: skip
