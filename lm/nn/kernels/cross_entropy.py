"""The loss of a language model's output layer, without the logits of all tokens at once.

With a large vocabulary the logits outweigh everything else in memory. Here the loss and, where it is differentiated,
the gradients of h and of the output weights are computed together for one chunk of positions after another in the
forward pass: the backward pass only scales them, and no logits are kept.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lm.nn.kernels.platform import fast, platform, settled
from lm.shapes import Array, Bool, Float, Int

LARGE = 2048  # a smaller vocabulary gains nothing from chunks
TOKENS = 1024  # tokens of a chunk
CHUNKS = 16  # more would cost speed, and save memory that is no longer the largest part


class CrossEntropy(NamedTuple):
    """loss: what is trained, the weighted sum over tokens (divide by the sum of weights where a mean is wanted).

    nats: each token's own negative log-likelihood, no smoothing or z-loss; correct: the likeliest token is the target.
    Both are for reports and carry no gradient.
    """

    loss: Float[Array, ""]
    nats: Float[Array, "*tokens"]
    correct: Bool[Array, "*tokens"]


class Head(NamedTuple):
    """All that is differentiated besides h and weights."""

    w_VD: Float[Array, "V D"]
    bias_V: Float[Array, " V"] | None
    z_loss: Float[Array, ""]
    smoothing: Float[Array, ""]


def cross_entropy(
    h: Float[Array, "*tokens D"],
    w_VD: Float[Array, "V D"],
    targets: Int[Array, "*tokens"],
    weights: Float[Array, "*tokens"],
    *,
    bias_V: Float[Array, " V"] | None = None,
    classes: int | None = None,
    softcap: float | None = None,
    z_loss: Float[Array, ""] | float = 0.0,
    label_smoothing: Float[Array, ""] | float = 0.0,
    chunk: int | None = None,
) -> CrossEntropy:
    """Cross-entropy of softmax(h w^T) against targets, in float32 whatever the type of h and w.

    loss = sum of weights * (nats + label_smoothing * (mean over V of -log p - nats) + z_loss * (log Z)^2), with
    z-loss as in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, section 5). Logits are capped as
    `softcap * tanh(logits / softcap)` where a softcap is given. Gradients reach everything but the static softcap.

    classes: how many rows of w are classes; those after them, there to fill up a multiple, have no part in anything.
    chunk: how many positions of the last token axis are computed at once (for all rows); None chooses, and computes
    all at once for a small vocabulary. The last chunk may be shorter.
    """
    shape, (V, D) = targets.shape, w_VD.shape
    rows, L = math.prod(shape[:-1]), shape[-1] if shape else 1
    whole = V < LARGE or not fast(platform())
    if chunk is None:
        chunk = L if whole else max(1, TOKENS // max(rows, 1), math.ceil(L / CHUNKS))
    head = Head(w_VD, bias_V, jnp.asarray(z_loss, jnp.float32), jnp.asarray(label_smoothing, jnp.float32))
    form = Form(softcap, V if classes is None else classes)
    tokens = h.reshape(rows, L, D), targets.reshape(rows, L), weights.reshape(rows, L).astype(jnp.float32)
    if chunk >= L and whole:
        loss_BL, nats, correct = _losses(form, head, *tokens[:2])[0]
        loss = jnp.sum(loss_BL * tokens[2])
    else:
        results: Any = _chunked(form, chunk, head, *tokens)
        loss, nats, correct = results
    return CrossEntropy(loss, lax.stop_gradient(nats).reshape(shape), correct.reshape(shape))


class Form(NamedTuple):
    """What a compiled loss is made for."""

    softcap: float | None
    classes: int


class Parts(NamedTuple):
    """What the gradient is made of."""

    logits: Float[Array, "B L V"]
    log_z: Float[Array, "B L"]
    is_target: Bool[Array, "B L V"]
    smooth: Float[Array, "B L"]


def _losses(form: Form, head: Head, h: Array, targets: Array) -> tuple[tuple, Parts]:
    """(trained loss, nats, correct) of each token before weighting."""
    logits = jnp.einsum("BLD,VD->BLV", h, head.w_VD.astype(h.dtype), preferred_element_type=jnp.float32)
    if head.bias_V is not None:
        logits += head.bias_V
    if form.softcap is not None:
        logits = form.softcap * jnp.tanh(logits / form.softcap)
    mean = jnp.sum(logits[..., : form.classes], axis=-1) / form.classes
    index = jnp.arange(logits.shape[-1])
    if form.classes < logits.shape[-1]:
        logits = jnp.where(index < form.classes, logits, -jnp.inf)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    is_target = targets[..., None] == index
    nats = log_z - jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    smooth = log_z - mean
    loss = nats + head.smoothing * (smooth - nats) + head.z_loss * log_z**2
    return (loss, nats, jnp.argmax(logits, axis=-1) == targets), Parts(logits, log_z, is_target, smooth)


def _gradients(form: Form, head: Head, h: Array, targets: Array, weights: Array) -> tuple[tuple, Head, tuple]:
    """Weighted loss, nats and correct of a chunk; the gradients of its loss by head, h and weights.

    The head's are float32 and transposed, [D, V].
    """
    (loss, nats, correct), parts = _losses(form, head, h, targets)
    probs = jnp.exp(parts.logits - parts.log_z[..., None])
    target = jnp.where(parts.is_target, 1.0 - head.smoothing, 0.0) + head.smoothing / form.classes
    dlogits = weights[..., None] * (probs * (1.0 + 2.0 * head.z_loss * parts.log_z)[..., None] - target)
    if form.softcap is not None:
        dlogits *= 1.0 - (parts.logits / form.softcap) ** 2
    if form.classes < probs.shape[-1]:
        dlogits = jnp.where(jnp.arange(probs.shape[-1]) < form.classes, dlogits, 0.0)
    dbias_V = None if head.bias_V is None else jnp.sum(dlogits, axis=(0, 1))
    V, D = head.w_VD.shape
    dlogits, h = settled((dlogits.astype(h.dtype), h))
    dh = jnp.einsum("BLV,VD->BLD", dlogits, head.w_VD.astype(h.dtype))
    # [D, V] transposes h; [V, D] would have a CPU's product read dlogits, the larger one, across its rows
    hT = settled(h.reshape(-1, D).T)
    dw_DV = jnp.matmul(hT, dlogits.reshape(-1, V), preferred_element_type=jnp.float32)
    dz_loss, dsmoothing = jnp.sum(weights * parts.log_z**2), jnp.sum(weights * (parts.smooth - nats))
    return (loss * weights, nats, correct), Head(dw_DV, dbias_V, dz_loss, dsmoothing), (dh, loss)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _chunked(form: Form, chunk: int, head: Head, h: Array, targets: Array, weights: Array) -> tuple:
    def step(_: None, part: tuple) -> tuple[None, tuple]:
        (loss, nats, correct), _parts = _losses(form, head, *part[:2])
        return None, (loss * part[2], nats, correct)

    _, (loss, nats, correct) = _scan_positions(step, None, (h, targets, weights), chunk)
    return jnp.sum(loss), nats, correct


def _chunked_forward(form: Form, chunk: int, head: Head, h: Array, targets: Array, weights: Array) -> tuple:
    def step(total: Head, part: tuple) -> tuple[Head, tuple]:
        report, dhead, dtokens = _gradients(form, head, *part)
        return jax.tree.map(jnp.add, total, dhead), (report, dtokens)

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape[::-1], jnp.float32), head)
    dhead, ((loss, nats, correct), dtokens) = _scan_positions(step, zero, (h, targets, weights), chunk)
    dhead = jax.tree.map(lambda d, x: d.T.astype(x.dtype), dhead, head)
    return (jnp.sum(loss), nats, correct), (dhead, *dtokens)


def _chunked_backward(form: Form, chunk: int, saved: tuple, cotangents: tuple) -> tuple:
    del form, chunk
    dhead, dh, dweights = jax.tree.map(lambda x: (cotangents[0] * x).astype(x.dtype), saved)
    return dhead, dh, None, dweights


_chunked.defvjp(_chunked_forward, _chunked_backward)


def _scan_positions(step: Any, carry: Any, xs: tuple[Array, ...], chunk: int) -> tuple[Any, Any]:
    """lax.scan over chunks of axis 1, the last one shorter where they don't divide; results joined along axis 1."""
    L = xs[0].shape[1]
    whole = L // chunk * chunk
    results = []
    if whole:

        def at(carry: Any, start: Array) -> tuple[Any, Any]:
            return step(carry, tuple(lax.dynamic_slice_in_dim(x, start, chunk, axis=1) for x in xs))

        carry, stacked = lax.scan(at, carry, jnp.arange(0, whole, chunk))
        results.append(jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1).reshape(y.shape[1], whole, *y.shape[3:]), stacked))
    if whole < L:
        carry, rest = step(carry, tuple(x[:, whole:] for x in xs))
        results.append(rest)
    return carry, jax.tree.map(lambda *ys: jnp.concatenate(ys, axis=1), *results)
