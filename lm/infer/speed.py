"""How fast a model decodes from a cache that already holds a context."""

from __future__ import annotations

import functools
import time
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm.infer.generate import advance, graph
from lm.models import Decoder
from lm.nn import param


def decode_speed(model: Decoder, context: int, batch: int = 1, tokens: int = 32, repeats: int = 5) -> dict[str, Any]:
    """Tokens a second of `batch` rows that each add `tokens` tokens to a context of `context` tokens.

    Weights are drawn at random: the speed doesn't depend on them. Returns the median over `repeats` and the range.
    """
    program, params = _program(model, context, batch, tokens), _params(model)
    jax.block_until_ready(program(params))  # compiles
    speeds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(program(params))
        speeds.append(batch * tokens / (time.perf_counter() - began))
    numbers = {"tokens_per_second": median(speeds), "low": min(speeds), "high": max(speeds)}
    return {"context": context, "batch": batch, **numbers, "device": jax.devices()[0].device_kind}


@functools.lru_cache(maxsize=1)
def _params(model: Decoder) -> param.Params:
    return jax.jit(lambda: param.split(model.build(rngs=nnx.Rngs(params=0)))[1])()


def _program(model: Decoder, context: int, batch: int, tokens: int) -> Any:
    def run(params: param.Params) -> jax.Array:
        cache = param.merge(graph(model), params).init_cache(batch, context + tokens)
        filled = jax.tree.map(lambda x: jnp.ones_like(x) if x.ndim < 4 and x.ndim > 0 else x, cache)
        filled = jax.tree.map(lambda x: jnp.full_like(x, context) if x.ndim == 0 else x, filled)
        ones = jnp.ones((batch, 1), jnp.int32)

        def one(i: Any, carry: Any) -> Any:
            token, cache = carry
            logits, cache = advance(model, params, token, ones * (context + i), ones, cache)
            return jnp.argmax(logits, axis=-1)[:, None].astype(jnp.int32), cache

        return jax.lax.fori_loop(0, tokens, one, (ones, filled))[0]

    return jax.jit(run)
