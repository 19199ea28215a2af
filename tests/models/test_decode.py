"""Decoding from a cache gives the full forward pass, for every mixer and position kind, in every way to feed it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.errors import UserError
from lm.infer import generate
from lm.models import Decoder, Execution
from lm.nn import param
from lm.nn.cache import KVCache
from tests.tiny import LENGTH, MODELS, VOCAB, made, mask_of, mixer_of

pytestmark = pytest.mark.core

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (2, LENGTH)))
AT = jnp.broadcast_to(jnp.arange(LENGTH), TOKENS.shape)
WAYS = {"token by token": [1] * LENGTH, "a prompt, then tokens": [4] + [1] * (LENGTH - 4), "chunks": [4, 4, 4]}


def feeder(name: str) -> Any:
    """A decoder of one pattern's length as a compiled `(slice, cache) -> (logits, cache)`, and an empty cache."""
    graph, params = made(replace(MODELS[name], {"layers": len(MODELS[name].pattern)}))

    @jax.jit
    def feed(params: param.Params, tokens: jax.Array, at: jax.Array, cache: Any) -> Any:
        model: Any = param.merge(graph, params)
        out = model.hidden(tokens, at, jnp.ones_like(at), cache, Execution())
        return model.logits(out.h), out.cache

    empty: Any = param.merge(graph, params)
    return lambda part, cache: feed(params, TOKENS[:, part], AT[:, part], cache), empty.init_cache(2, LENGTH)


@pytest.mark.parametrize("name", MODELS)
def test_the_cache_changes_nothing(name: str) -> None:
    feed, empty = feeder(name)
    full, _ = feed(slice(0, LENGTH), None)
    for way, chunks in WAYS.items():
        cache, logits, start = empty, [], 0
        for size in chunks:
            found, cache = feed(slice(start, start + size), cache)
            logits.append(found)
            start += size
        np.testing.assert_allclose(np.concatenate(logits, axis=1), full, atol=2e-3, err_msg=way)
        if isinstance(cache[0], KVCache):
            assert cache[0].kept.count == mask_of(mixer_of(MODELS[name])).kept(LENGTH)
            assert int(cache[0].written) == LENGTH
    assert np.std(full) > 0.1


def test_another_past_is_another_future() -> None:
    feed, empty = feeder("mha")
    _, cache = feed(slice(0, 4), empty)
    after_four, _ = feed(slice(4, 8), cache)
    after_nothing, _ = feed(slice(4, 8), empty)
    assert np.abs(after_four - after_nothing).max() > 0.1


PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3], [5], [8, 9, 7, 9, 3]]
NEW = 5


@pytest.mark.parametrize("name", ["gqa", "window", "alibi, window", "t5", "learned"])
def test_greedy_generation_is_the_argmax_of_the_full_forward(name: str) -> None:
    spec: Decoder = replace(MODELS[name], {"layers": 1})
    graph, params = made(spec)
    out = generate(spec, params, PROMPTS, NEW)
    assert [len(row) for row in out] == [NEW] * len(PROMPTS)
    rows, segments = np.zeros((len(PROMPTS), LENGTH), np.int32), np.zeros((len(PROMPTS), LENGTH), np.int32)
    for row, (prompt, new) in enumerate(zip(PROMPTS, out, strict=True)):
        rows[row, : len(prompt) + NEW] = prompt + new
        segments[row, : len(prompt) + NEW] = 1
    logits = np.asarray(
        jax.jit(lambda p: param.merge(graph, p)(jnp.asarray(rows), segments=jnp.asarray(segments)))(params)
    )
    for row, (prompt, new) in enumerate(zip(PROMPTS, out, strict=True)):
        assert new == logits[row, len(prompt) - 1 : len(prompt) + NEW - 1].argmax(axis=-1).tolist()
    assert len({tuple(row) for row in out}) > 1


def test_a_row_alone_is_the_row_in_the_batch() -> None:
    spec = replace(MODELS["window"], {"layers": 1})
    _, params = made(spec)
    assert generate(spec, params, [PROMPTS[1]], NEW) == [generate(spec, params, PROMPTS, NEW)[1]]
    stop = generate(spec, params, [PROMPTS[1]], NEW)[0][2]
    assert stop not in generate(spec, params, [PROMPTS[1]], NEW, stop=stop)[0]


def test_bad_requests_are_refused() -> None:
    spec = MODELS["learned"]
    _, params = made(spec)
    with pytest.raises(UserError, match="at least one token in every prompt"):
        generate(spec, params, [[1], []], 3)
    with pytest.raises(UserError, match="new_tokens=0"):
        generate(spec, params, [[1]], 0)
    with pytest.raises(ConfigError, match="16 learned positions, 17 were asked for"):
        generate(spec, params, [[1] * 10], 8)
