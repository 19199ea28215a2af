"""Predicting several tokens ahead."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lm.config import ConfigError, Scalar, config
from lm.models.execution import Execution
from lm.models.model import Model
from lm.models.multi_token import MTP
from lm.nn.aux import joined
from lm.objectives import fits
from lm.objectives.loss import token_sums
from lm.objectives.objective import Batch, Objective, Sums


@config
class MultiToken(Objective):
    """The next token, and `weight` times the mean over an `MTP`'s modules of the loss of the tokens they say
    (DeepSeek-AI 2024, 2.2, eq. 24 and 25; the idea with parallel heads: Gloeckle et al. 2024).

    No module is asked for a token of another document or row. Nats and accuracy are those of the next token alone,
    comparable with NextToken's; rows have `ahead_2`, `ahead_3`, ... besides: the nats of the modules' targets, of which
    there are fewer, over the number of all next tokens.
    """

    weight: Scalar = 0.3

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ConfigError(f"weight={self.weight} must not be negative")

    def check(self, model: Model, length: int) -> None:
        if not isinstance(model, MTP):
            raise ConfigError(f"MultiToken trains an MTP(decoder, block), not a {type(model).__name__}")
        fits.causal([*model.decoder.each(), model.block], self)
        model.check_context(length)

    def __call__(self, model: Any, batch: Batch, execution: Execution) -> Sums:
        positions, segments, targets = batch["positions"], batch["segments"], batch["targets"]
        found = model.hidden(batch["tokens"], positions, segments, None, execution)
        sums = token_sums(model, found, targets, batch["weights"])
        tokens, weights, h, said = targets, batch["weights"], found.h, [found.aux]
        watched, loss = {}, sums.loss
        share = self.weight / model.spec.modules
        for k in range(model.spec.modules):
            found = model.ahead(k, h, tokens, positions, segments, execution)
            inside = _later(segments, k + 1) == segments
            weights = jnp.where(inside, _later(batch["weights"], k + 1), 0.0)
            tokens, h = _later(targets, k + 1), found.h
            part = token_sums(model, found._replace(aux=found.aux._replace(loss=0.0)), tokens, weights)
            loss += share * part.loss + sums.tokens * found.aux.loss
            watched[f"ahead_{k + 2}"] = part.nats
            said.append(found.aux)
        metrics = {name: sums.tokens * value for name, value in joined(said).metrics.items()}
        return sums._replace(loss=loss, watched=metrics | watched)


def _later(x: jax.Array, by: int) -> jax.Array:
    """What is `by` places on in a row [B L], 0 beyond its end."""
    return jnp.pad(x[:, by:], ((0, 0), (0, min(by, x.shape[1]))))
