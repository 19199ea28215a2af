"""How fast a model decodes from a cache that already holds a context."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm.infer.generate import advance, graph
from lm.models import Cache, Decoder
from lm.nn import param

TOKENS = 32  # decoded for one measurement


def decode_speed(model: Decoder, context: int, batch: int = 1, repeats: int = 7) -> dict[str, Any]:
    """Tokens a second of `batch` rows that each add tokens to a context of `context` tokens, in float32.

    Weights and cache are drawn at random: the speed doesn't depend on them. Making and filling the cache isn't timed.
    Returns the median over `repeats` and the range.
    """
    params = jax.jit(lambda: param.split(model.build(rngs=nnx.Rngs(params=0)))[1])()
    cache = jax.jit(lambda: _filled(model, context, batch))()
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


def _filled(model: Decoder, context: int, batch: int) -> Cache:
    """A cache with `context` tokens and room for those that are timed."""
    module = param.merge(graph(model), param.split(model.build(rngs=nnx.Rngs(params=0)))[1])
    cache = module.init_cache(batch, context + TOKENS)
    drawn = lambda x: jax.random.normal(jax.random.key(0), x.shape, x.dtype)  # noqa: E731
    slots = [jnp.arange(layer.k.shape[1]) + max(context - layer.k.shape[1], 0) for layer in cache]
    return tuple(
        layer._replace(
            k=drawn(layer.k),
            v=drawn(layer.v),
            positions=jnp.broadcast_to(at, layer.positions.shape).astype(jnp.int32),
            segments=jnp.broadcast_to(at < context, layer.segments.shape).astype(jnp.int32),
            written=jnp.asarray(context, jnp.int32),
        )
        for layer, at in zip(cache, slots, strict=True)
    )


def _decode(model: Decoder, params: param.Params, cache: Cache, context: int, batch: int) -> tuple[jax.Array, Cache]:
    """Decodes greedily after the context, over whatever an earlier call wrote there."""
    ones = jnp.ones((batch, 1), jnp.int32)
    cache = jax.tree.map(lambda x: jnp.full_like(x, context) if x.ndim == 0 else x, cache)

    def one(i: Any, carry: tuple[jax.Array, Cache]) -> tuple[jax.Array, Cache]:
        token, cache = carry
        logits, cache = advance(model, params, token, ones * (context + i), ones, cache)
        return jnp.argmax(logits, axis=-1)[:, None].astype(jnp.int32), cache

    return jax.lax.fori_loop(0, TOKENS, one, (ones, cache))
