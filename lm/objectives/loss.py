"""Cross-entropy of tokens as the sums that training adds up."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lm.models.model import Hidden
from lm.nn.kernels.cross_entropy import cross_entropy
from lm.objectives.objective import Sums
from lm.shapes import Array, Float, Int


def token_sums(
    model: Any,
    hidden: Hidden,
    targets: Int[Array, "B L"],
    weights: Float[Array, "B L"],
    *,
    tokens: jax.Array | None = None,
    z_loss: Any = 0.0,
    label_smoothing: Any = 0.0,
) -> Sums:
    """The sums of a model's hidden states against targets.

    tokens: what the sums are of, where that isn't the sum of the weights.
    """
    with jax.named_scope("head"):
        ce = cross_entropy(
            hidden.h,
            model.head(),
            targets,
            weights,
            bias_V=model.head_bias(),
            classes=model.spec.vocab,
            softcap=model.spec.softcap,
            z_loss=z_loss,
            label_smoothing=label_smoothing,
        )
    tokens = jnp.sum(weights) if tokens is None else tokens
    loss = ce.loss + tokens * hidden.aux.loss
    watched = {name: tokens * value for name, value in hidden.aux.metrics.items()}
    return Sums(loss, jnp.sum(weights * ce.nats), tokens, jnp.sum(weights * ce.correct), watched)
