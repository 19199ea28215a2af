"""Pretraining objectives."""

from lm.objectives.next_token import NextToken
from lm.objectives.objective import Batch, Objective, Sums

__all__ = ["Batch", "NextToken", "Objective", "Sums"]
