"""Generation with a key-value cache, the whole of it one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.errors import UserError
from lm.infer.sampling import Greedy, Sampler
from lm.models import Cache, Decoder, Execution
from lm.nn import param


def generate(
    model: Decoder,
    params: param.Params,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    sampler: Sampler | None = None,
    seed: int = 0,
    stop: int | None = None,
) -> list[list[int]]:
    """Continues each prompt (tokens, any lengths) by up to `new_tokens`, ending a row before its first `stop` token."""
    if not prompts or any(len(p) == 0 for p in prompts):
        raise UserError("generation needs at least one token in every prompt, for instance the tokenizer's eot")
    if new_tokens < 1:
        raise UserError(f"new_tokens={new_tokens} must be at least 1")
    longest = max(map(len, prompts))
    tokens = np.zeros((len(prompts), longest), np.int32)
    segments = np.zeros_like(tokens)
    for row, prompt in enumerate(prompts):  # on the right, so that all rows go on in the same slot
        tokens[row, longest - len(prompt) :] = prompt
        segments[row, longest - len(prompt) :] = 1
    out = _program(model, new_tokens, sampler or Greedy())(params, tokens, segments, jax.random.key(seed))
    rows = np.asarray(out).tolist()
    return [row[: row.index(stop)] if stop is not None and stop in row else row for row in rows]


@functools.lru_cache(maxsize=16)
def graph(model: Decoder) -> nnx.GraphDef:
    return param.split(nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0))))[0]


def advance(
    model: Decoder, params: param.Params, tokens: jax.Array, positions: jax.Array, segments: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """Feeds tokens [B L] that follow the cache. Returns the logits [B V] after the last of them, and the cache."""
    module = param.merge(graph(model), params)
    hidden = module.hidden(tokens, positions, segments, cache, Execution())
    assert hidden.cache is not None
    return module.logits(hidden.h[:, -1:])[:, 0], hidden.cache


@functools.lru_cache(maxsize=16)
def _program(model: Decoder, new_tokens: int, sampler: Sampler) -> Any:
    """(params, tokens [B L], segments [B L], key) -> tokens [B new_tokens]."""

    def run(params: param.Params, tokens: jax.Array, segments: jax.Array, key: jax.Array) -> jax.Array:
        batch, length = tokens.shape
        cache = param.merge(graph(model), params).init_cache(batch, length + new_tokens - 1)
        positions = jnp.maximum(jnp.cumsum(segments, axis=1) - 1, 0)
        logits, cache = advance(model, params, tokens, positions, segments, cache)
        ones = jnp.ones((batch, 1), jnp.int32)

        def one(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            logits, position, cache = carry
            token = sampler(logits, key)
            logits, cache = advance(model, params, token[:, None], position, ones, cache)
            return (logits, position + 1, cache), token

        keys = jax.random.split(key, new_tokens)
        carry = (logits, positions[:, -1:] + 1, cache)
        carry, out = jax.lax.scan(one, carry, keys[:-1])
        last = sampler(carry[0], keys[-1])
        return jnp.concatenate([out.T, last[:, None]], axis=1)

    return jax.jit(run)
