"""The loss of a language model's output layer, without the logits of all tokens at once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class CrossEntropy(NamedTuple):
    """loss: what is trained, the weighted sum over tokens (divide by the sum of weights where a mean is wanted).

    nats: each token's own negative log-likelihood, no smoothing or z-loss; correct: the likeliest token is the target.
    Both are for reports and carry no gradient.
    """

    loss: Float[Array, ""]
    nats: Float[Array, "..."]
    correct: Bool[Array, "..."]


def cross_entropy(
    h: Float[Array, "... D"],
    w_VD: Float[Array, "V D"],
    targets: Int[Array, "..."],
    weights: Float[Array, "..."],
    *,
    bias_V: Float[Array, "V"] | None = None,
    softcap: float | None = None,
    z_loss: Float[Array, ""] | float = 0.0,
    label_smoothing: Float[Array, ""] | float = 0.0,
    chunk: int | None = None,
) -> CrossEntropy:
    """loss = sum of weights * ((1 - smoothing) * nats + smoothing * mean over V of -log p + z_loss * (log Z)^2)."""
    logits = jnp.einsum("...D,VD->...V", h, w_VD, preferred_element_type=jnp.float32)
    if bias_V is not None:
        logits += bias_V
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    nats = log_z - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    smooth = log_z - jnp.mean(logits, axis=-1)
    loss = jnp.sum(weights * (nats + label_smoothing * (smooth - nats) + z_loss * log_z**2))
    correct = jnp.argmax(logits, axis=-1) == targets
    return CrossEntropy(loss, jax.lax.stop_gradient(nats), correct)
