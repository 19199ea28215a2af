"""Gradient descent on tables of vectors: epochs of shuffled examples, in scans of many small steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS = 64  # steps of one compiled scan, where an epoch has so many

Examples = tuple[np.ndarray, ...]  # arrays [n ...], an example a row
Loss = Callable[..., jax.Array]  # (params, key, *examples [batch ...]) -> the loss of each [batch]


class Trained(NamedTuple):
    """Parameters, and the mean loss of an example in each epoch, as they were met."""

    params: Any
    losses: tuple[float, ...]


def descend(
    loss: Loss,
    rule: optax.GradientTransformation,
    params: Any,
    examples: Callable[[int], Examples],
    *,
    epochs: int,
    batch: int,
    rate: Callable[[float], float],
    seed: int,
) -> Trained:
    """Steps on the summed loss of `batch` examples. Equal arguments give equal parameters on one machine.

    rule: makes updates for a rate of 1. rate: of the share of training that is done. examples: those of an epoch, given
    its number.
    """
    state, key, losses, steps = rule.init(params), jax.random.key(seed), [], STEPS
    for epoch in range(epochs):
        arrays = examples(epoch)
        if epoch == 0:
            steps = min(STEPS, -(-len(arrays[0]) // batch))
        order = np.random.default_rng([seed, epoch]).permutation(len(arrays[0]))
        total = 0.0
        for first in range(0, len(order), steps * batch):
            chosen = order[first : first + steps * batch]
            filled = np.resize(chosen, steps * batch)  # the same shape for all; what fills it up weighs nothing
            weights = np.arange(len(filled)) < len(chosen)
            done = (epoch + (first + batch * np.arange(steps)) / len(order)) / epochs
            rates = np.where(weights[::batch], [rate(share) for share in np.minimum(done, 1)], 0)
            parts = [x[filled].reshape(steps, batch, *x.shape[1:]) for x in arrays]
            key, now = jax.random.split(key)
            given = now, rates.astype(np.float32), weights.reshape(steps, batch).astype(np.float32), parts
            params, state, found = _steps(loss, rule, params, state, *given)
            total += float(found)
        losses.append(total / len(order))
    return Trained(params, tuple(losses))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def _steps(loss: Loss, rule: Any, params: Any, state: Any, key: Any, rates: Any, weights: Any, parts: Any) -> Any:
    def step(carry: Any, now: Any) -> Any:
        params, state = carry
        key, rate, weight, part = now
        value, gradient = jax.value_and_grad(lambda p: jnp.sum(weight * loss(p, key, *part)))(params)
        updates, state = rule.update(gradient, state, params)
        return (jax.tree.map(lambda p, u: p + rate * u, params, updates), state), value

    keys = jax.random.split(key, len(rates))
    (params, state), values = jax.lax.scan(step, (params, state), (keys, rates, weights, parts))
    return params, state, jnp.sum(values)
