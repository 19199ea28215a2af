"""Finding the tokens that a small model put in the place of others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.config import ConfigError, Scalar, config
from lm.data.packing import Batch as HostBatch
from lm.data.tokenizers import Codec
from lm.models.electra import Electra
from lm.models.execution import Execution
from lm.models.model import Model
from lm.nn.aux import joined
from lm.objectives.draws import Draws
from lm.objectives.loss import token_sums
from lm.objectives.masked import Unit, chosen
from lm.objectives.objective import Batch, Objective, Sums


@config
class ReplacedTokens(Objective):
    """Replaced-token detection (Clark et al. 2020, "ELECTRA", 3.1), for an `Electra`.

    A share `rate` of each row's tokens (as in `Masked`) becomes masks, which the generator fills: it learns to by
    masked language modelling. The discriminator reads what was drawn from it, and learns to say of every token whether
    it is another one than was there; no gradient goes through the draw. The loss is the generator's mean over masked
    tokens and `weight` times the discriminator's mean over all tokens of a row.

    Nats and accuracy are the generator's (pseudo-likelihood). Rows have the discriminator's besides: `detection`, its
    mean cross-entropy in nats, `detection_accuracy`, and `replaced`, the share of the tokens that were.
    """

    rate: float = 0.15
    weight: Scalar = 50.0
    unit: Unit = "token"

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"rate={self.rate} is a share of the tokens: above 0, at most 1")
        if self.weight < 0:
            raise ConfigError(f"weight={self.weight} must not be negative")

    @property
    def extra(self) -> int:
        return 1

    def check(self, model: Model, length: int) -> None:
        if not isinstance(model, Electra):
            raise ConfigError(
                f"ReplacedTokens trains an Electra(generator, discriminator), not a {type(model).__name__}"
            )
        model.check_context(length)

    def prepare(self, batch: HostBatch, draws: Draws, codec: Codec, model: Model) -> HostBatch:
        """Besides the usual arrays `key` uint32 [B 2]: of each row's draws from the generator."""
        tokens, weights = batch["targets"].copy(), np.zeros_like(batch["weights"])
        for row, places in enumerate(chosen(batch, draws, codec, self.rate, self.unit)):
            tokens[row, places], weights[row, places] = codec.vocab, 1
        key = np.stack([rng.integers(1 << 32, size=2, dtype=np.uint32) for rng in draws.rngs])
        return {**batch, "tokens": tokens, "weights": weights, "key": key}

    def __call__(self, model: Any, batch: Batch, execution: Execution) -> Sums:
        ids, targets, masked = (
            (batch["positions"], batch["segments"], None, execution),
            batch["targets"],
            batch["weights"],
        )
        filled = model.generator.hidden(batch["tokens"], *ids)
        sums = token_sums(model.generator, filled, targets, masked)
        logits = jax.lax.stop_gradient(model.generator.logits(filled.h))
        drawn = jax.vmap(_draw)(batch["key"], logits).astype(targets.dtype)
        read = jnp.where(masked > 0, drawn, targets)
        found = model.discriminator.hidden(read, *ids)
        said = model.discriminator.logits(found.h)[..., 0]
        real, replaced = (batch["segments"] != 0).astype(jnp.float32), read != targets
        nats = jax.nn.softplus(jnp.where(replaced, -said, said))
        # a row's mean over all its tokens, as often as it has masked ones: what sums of rows are divided by
        share = jnp.sum(masked, axis=1, keepdims=True) / jnp.maximum(jnp.sum(real, axis=1, keepdims=True), 1)
        means = {"detection": nats, "detection_accuracy": (said > 0) == replaced, "replaced": replaced}
        watched = {name: jnp.sum(share * real * value) for name, value in means.items()}
        loss = sums.loss + self.weight * watched["detection"] + sums.tokens * found.aux.loss
        layers = joined([filled.aux, found.aux]).metrics
        return sums._replace(loss=loss, watched={n: sums.tokens * value for n, value in layers.items()} | watched)


def _draw(key: jax.Array, logits: jax.Array) -> jax.Array:
    """A row's tokens [L] from its logits [L V]."""
    return jax.random.categorical(jax.random.wrap_key_data(key, impl="threefry2x32"), logits)
