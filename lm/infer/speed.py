"""How fast a model decodes from a cache that already holds a context."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.infer import loop
from lm.infer.sampling import Greedy
from lm.models import Cache, Decoder, Execution
from lm.nn import param
from lm.nn.cache import Cache as LayerCache
from lm.nn.cache import KVCache
from lm.nn.kernels.platform import plain_forms

TOKENS = loop.RUN  # decoded for one measurement


def decode_speed(
    model: Decoder, context: int, batch: int = 1, repeats: int = 7, execution: Execution | None = None
) -> dict[str, Any]:
    """Tokens a second of `batch` rows that each add tokens to a context of `context` tokens.

    execution: the type of the computation and of the cache, and which kernels. Making and filling the cache isn't
    timed. Returns the median over `repeats` and the range.
    """
    decode, speeds = decoding(model, context, batch, execution or Execution()), []
    for _ in range(repeats):
        began = time.perf_counter()
        decode()
        speeds.append(batch * TOKENS / (time.perf_counter() - began))
    return {
        "context": context,
        "batch": batch,
        "tokens_per_second": median(speeds),
        "low": min(speeds),
        "high": max(speeds),
    }


def decoding(model: Decoder, context: int, batch: int, execution: Execution) -> Callable[[], None]:
    """A compiled function that adds `TOKENS` tokens to each row's context, the same context at every call.

    Weights and cache are drawn at random: the speed doesn't depend on them.
    """
    module = nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0)))
    graph, shapes = param.split(module)
    params = execution.cast(graph, jax.tree.map(_drawn, shapes))
    empty = jax.eval_shape(lambda: module.init_cache(batch, context + TOKENS, params["embedding"].dtype))
    cache = tuple(_filled(layer, context) for layer in empty)
    program = jax.jit(lambda params, cache: _decode(model, params, cache, context, batch, execution), donate_argnums=1)

    def decode() -> None:
        nonlocal cache
        cache = jax.block_until_ready(program(params, cache))

    decode()  # compiles
    return decode


def _drawn(shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Drawn by NumPy: there is nothing to compile, which would take longer than the measurement."""
    return jnp.asarray(np.random.default_rng(0).normal(0, 0.1, shape.shape), shape.dtype)


def _filled(empty: LayerCache, context: int) -> LayerCache:
    """A cache of these shapes that holds `context` tokens."""
    drawn = jax.tree.map(_drawn, empty)
    if not isinstance(drawn, KVCache):
        return drawn
    size = drawn.kept.count
    at = np.arange(size) + max(context - size, 0)
    ids = (jnp.asarray(np.broadcast_to(x, drawn.kept.positions.shape), jnp.int32) for x in (at, at < context))
    kept = drawn.kept._replace(**dict(zip(("positions", "segments"), ids, strict=True)))
    return dataclasses.replace(drawn, kept=kept, written=jnp.int32(context))


def _decode(
    model: Decoder, params: param.Params, cache: Cache, context: int, batch: int, execution: Execution
) -> Cache:
    """Decodes greedily after the context, over whatever an earlier call wrote there."""
    cache = jax.tree.map(lambda x: jnp.full_like(x, context) if x.ndim == 0 else x, cache)
    row = jnp.ones(batch, jnp.int32)
    state = loop.State(cache, row, row * context, jnp.int32(0), row > 0, jax.random.key(0), jnp.int32(-1))
    with plain_forms(execution.kernels == "plain"):
        return loop.run(model, Greedy(), params, state, jnp.int32(TOKENS), TOKENS)[0].cache
