"""Masked diffusion: predicting any share of hidden tokens, as a bound of the likelihood."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from lm.config import config
from lm.data.packing import Batch as HostBatch
from lm.data.tokenizers import Codec
from lm.models.execution import Execution
from lm.models.model import Model
from lm.objectives import fits
from lm.objectives.draws import Draws
from lm.objectives.loss import token_sums
from lm.objectives.masked import one_masked
from lm.objectives.objective import Batch, Objective, Sums


@config
class MaskedDiffusion(Objective):
    """Masked diffusion language modelling (Sahoo et al. 2024, "MDLM"; Nie et al. 2025, "LLaDA").

    Each row has a t, uniform on (0, 1] and spread evenly over the rows of a batch. Of the n tokens of a row that count,
    ends of documents among them, l = ceil(t n) become the mask token, and the loss is n/l times the sum of their
    negative log-likelihoods (LLaDA, eq. 14). Hiding each token with probability t, at a weight of 1/t (eq. 3), has the
    same expectation and a larger variance.

    That expectation is an upper bound of the negative log-likelihood of the text (Ou et al. 2024): its nats are
    comparable with NextToken's, which are exact, as a bound. The model isn't told t. For sampling see
    `lm.infer.diffusion`.
    """

    @property
    def extra(self) -> int:
        return 1

    def check(self, model: Model, length: int) -> None:
        fits.bidirectional(fits.layers(model, self), self)
        model.check_context(length)

    def prepare(self, batch: HostBatch, draws: Draws, codec: Codec, model: Model) -> HostBatch:
        tokens, scale = batch["targets"].copy(), np.zeros_like(batch["weights"])
        for row, (rng, stratum) in enumerate(zip(*draws, strict=True)):
            places = np.flatnonzero(batch["weights"][row])
            hidden = rng.permutation(places)[: math.ceil((1 - stratum) * len(places))]
            tokens[row, hidden] = codec.vocab
            scale[row, hidden] = len(places) / max(len(hidden), 1)
        return {**batch, "tokens": tokens, "scale": scale}

    def blanked(self, batch: HostBatch, place: int, codec: Codec, model: Model) -> HostBatch:
        """From both sides, as in the last step of sampling."""
        asked = one_masked(batch, place, codec)
        return {**asked, "scale": asked["weights"]}

    def __call__(self, model: Any, batch: Batch, execution: Execution) -> Sums:
        hidden = model.hidden(batch["tokens"], batch["positions"], batch["segments"], None, execution)
        tokens = jnp.sum(batch["weights"])
        return token_sums(model, hidden, batch["targets"], batch["scale"], tokens=tokens)
