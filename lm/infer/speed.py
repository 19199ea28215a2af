"""How fast a model decodes from a cache that already holds a context."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.infer.generate import advance
from lm.models import Cache, Decoder
from lm.nn import param

TOKENS = 32  # decoded for one measurement


def decode_speed(model: Decoder, context: int, batch: int = 1, repeats: int = 7) -> dict[str, Any]:
    """Tokens a second of `batch` rows that each add tokens to a context of `context` tokens, in float32.

    Weights and cache are drawn at random: the speed doesn't depend on them. Making and filling the cache isn't timed.
    Returns the median over `repeats` and the range.
    """
    module = nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0)))
    params = jax.tree.map(_drawn, param.split(module)[1])
    cache = _filled(jax.eval_shape(lambda: module.init_cache(batch, context + TOKENS)), context)
    program = jax.jit(lambda params, cache: _decode(model, params, cache, context, batch), donate_argnums=1)
    speeds = []
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        _, cache = jax.block_until_ready(program(params, cache))
        if repeat:  # the first compiles
            speeds.append(batch * TOKENS / (time.perf_counter() - began))
    return {
        "context": context,
        "batch": batch,
        "tokens_per_second": median(speeds),
        "low": min(speeds),
        "high": max(speeds),
    }


def _drawn(shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Drawn by NumPy: there is nothing to compile, which would take longer than the measurement."""
    return jnp.asarray(np.random.default_rng(0).normal(0, 0.1, shape.shape), shape.dtype)


def _filled(empty: Cache, context: int) -> Cache:
    """A cache of these shapes that holds `context` tokens."""
    layers = []
    for layer in empty:
        size = layer.k.shape[1]
        at = np.arange(size) + max(context - size, 0)
        positions, segments = (np.broadcast_to(x, layer.positions.shape) for x in (at, at < context))
        layers.append(
            layer._replace(
                k=_drawn(layer.k),
                v=_drawn(layer.v),
                positions=jnp.asarray(positions, jnp.int32),
                segments=jnp.asarray(segments, jnp.int32),
                written=jnp.asarray(context, jnp.int32),
            )
        )
    return tuple(layers)


def _decode(model: Decoder, params: param.Params, cache: Cache, context: int, batch: int) -> tuple[jax.Array, Cache]:
    """Decodes greedily after the context, over whatever an earlier call wrote there."""
    ones = jnp.ones((batch, 1), jnp.int32)
    cache = jax.tree.map(lambda x: jnp.full_like(x, context) if x.ndim == 0 else x, cache)

    def one(i: Any, carry: tuple[jax.Array, Cache]) -> tuple[jax.Array, Cache]:
        token, cache = carry
        logits, cache = advance(model, params, token, ones * (context + i), ones, cache)
        return jnp.argmax(logits, axis=-1)[:, None].astype(jnp.int32), cache

    return jax.lax.fori_loop(0, TOKENS, one, (ones, cache))
