"""Predicting the next token."""

from __future__ import annotations

from typing import Any

from lm.config import ConfigError, Scalar, config
from lm.data.packing import Batch as HostBatch
from lm.data.tokenizers import Codec
from lm.models.execution import Execution
from lm.models.model import Model
from lm.objectives import fits
from lm.objectives.loss import token_sums
from lm.objectives.objective import Batch, Objective, Sums, only


@config
class NextToken(Objective):
    """Cross-entropy of the next token.

    z_loss times (log Z)^2 keeps the logits' scale (Chowdhery et al. 2022, 5); label_smoothing spreads that share of
    the target over the vocabulary (Szegedy et al. 2016).
    """

    z_loss: Scalar = 0.0
    label_smoothing: Scalar = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing={self.label_smoothing} must be in [0, 1)")
        if self.z_loss < 0:
            raise ConfigError(f"z_loss={self.z_loss} must not be negative")

    def check(self, model: Model, length: int) -> None:
        fits.causal(fits.layers(model, self), self)
        model.check_context(length)

    def blanked(self, batch: HostBatch, place: int, codec: Codec, model: Model) -> HostBatch:
        """From what comes before."""
        return {**batch, "weights": only(batch, place)}

    def __call__(self, model: Any, batch: Batch, execution: Execution) -> Sums:
        hidden = model.hidden(batch["tokens"], batch["positions"], batch["segments"], None, execution)
        targets, weights = batch["targets"], batch["weights"]
        return token_sums(model, hidden, targets, weights, z_loss=self.z_loss, label_smoothing=self.label_smoothing)
