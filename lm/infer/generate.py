"""Generation with a cache: the whole of it one compiled program, or a few tokens a program for who waits for them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from lm.errors import UserError
from lm.infer import loop
from lm.infer.sampling import Greedy, Sampler
from lm.models import Decoder, Execution
from lm.nn import param
from lm.nn.kernels.platform import plain_forms

STREAMED = 8  # tokens a dispatch of `stream`


def generate(
    model: Decoder,
    params: param.Params,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    sampler: Sampler | None = None,
    seed: int = 0,
    stop: int | None = None,
    execution: Execution | None = None,
) -> list[list[int]]:
    """Continues each prompt (tokens, any lengths) by up to `new_tokens`, ending a row before its first `stop` token.

    execution: the type of the computation and of the cache, and which kernels. Lengths are rounded up for compiling,
    so that other prompts mostly find a program that exists; the tokens don't depend on it.
    Raises UserError for an empty prompt, ConfigError where the model has no positions for so many tokens.
    """
    request = _request(model, params, prompts, new_tokens, seed, stop, execution)
    program = _program(model, sampler or Greedy(), request.execution)
    out = program(*request.arrays, np.int32(new_tokens), room=request.room)
    return rows_of(out, new_tokens, stop)


def rows_of(out: Any, new_tokens: int, stop: int | None) -> list[list[int]]:
    """What was made [length, B], row by row and each before its first `stop`."""
    rows = np.asarray(out).T[:, :new_tokens].tolist()
    return [row[: row.index(stop)] if stop is not None and stop in row else row for row in rows]


def stream(
    model: Decoder,
    params: param.Params,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    sampler: Sampler | None = None,
    seed: int = 0,
    stop: int | None = None,
    execution: Execution | None = None,
) -> Iterator[list[int | None]]:
    """The tokens of `generate` as they come: one of each row at a time, None for a row that has ended."""
    request = _request(model, params, prompts, new_tokens, seed, stop, execution)
    return _streamed(request, _steps(model, sampler or Greedy(), request.execution), new_tokens, stop)


def _streamed(
    request: _Request, steps: tuple[Any, Any], new_tokens: int, stop: int | None
) -> Iterator[list[int | None]]:
    begin, run = steps
    state = begin(*request.arrays, room=request.room)
    made, going = [np.asarray(state.token)], np.ones(len(state.token), bool)
    left = new_tokens
    while True:
        for tokens in made:
            going &= tokens != stop
            if not going.any():
                return
            yield [int(token) if wanted else None for token, wanted in zip(tokens, going, strict=True)]
        left -= len(made)
        if not left:
            return
        count = min(left, STREAMED)
        state, out = run(request.arrays[0], state, np.int32(count))
        made = list(np.asarray(out)[:count])


class _Request(NamedTuple):
    """What programs are called with: (params, tokens [B L], segments [B L], key, stop), and what they are made for."""

    arrays: tuple[Any, ...]
    room: int
    execution: Execution


def _request(
    model: Decoder,
    params: param.Params,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    seed: int,
    stop: int | None,
    execution: Execution | None,
) -> _Request:
    tokens, segments = padded(prompts, new_tokens)
    model.check_context(max(map(len, prompts)) + new_tokens - 1)
    execution = execution or Execution()
    stopped = np.int32(-1 if stop is None else stop)
    cast = execution.cast(loop.graph(model), params)
    return _Request((cast, tokens, segments, jax.random.key(seed), stopped), bucket(new_tokens), execution)


def padded(prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and segments [B L]. Raises UserError for what can't be continued."""
    if not prompts or any(len(p) == 0 for p in prompts):
        raise UserError("generation needs at least one token in every prompt, for instance the tokenizer's eot")
    if new_tokens < 1:
        raise UserError(f"new_tokens={new_tokens} must be at least 1")
    tokens = np.zeros((len(prompts), bucket(max(map(len, prompts)))), np.int32)
    segments = np.zeros_like(tokens)
    for row, prompt in enumerate(prompts):  # on the right, so that all rows go on in the same slot
        tokens[row, -len(prompt) :] = prompt
        segments[row, -len(prompt) :] = 1
    return tokens, segments


def bucket(length: int) -> int:
    """The next of 16, 24, 32, 48, 64, 96, ...: lengths that programs are compiled for."""
    size = 16
    while size < length:
        size *= 2
    return 3 * size // 4 if size > 16 and 3 * size // 4 >= length else size


@functools.lru_cache(maxsize=16)
def _program(model: Decoder, sampler: Sampler, execution: Execution) -> Any:
    """(params, tokens [B L], segments [B L], key, stop, new_tokens, room) -> tokens [room + RUN, B]."""

    def whole(params: Any, tokens: Any, segments: Any, key: Any, stop: Any, new_tokens: Any, *, room: int) -> jax.Array:
        with plain_forms(execution.kernels == "plain"):
            state = loop.begin(model, sampler, params, tokens, segments, key, stop, room)
            return loop.until(partial(loop.run, model, sampler, params), state, new_tokens, room)

    return jax.jit(whole, static_argnames="room")


@functools.lru_cache(maxsize=16)
def _steps(model: Decoder, sampler: Sampler, execution: Execution) -> tuple[Any, Any]:
    """The two programs of a stream: from a prompt to a state, and from a state to the next with a few tokens."""

    def begin(params: Any, tokens: Any, segments: Any, key: Any, stop: Any, *, room: int) -> loop.State:
        with plain_forms(execution.kernels == "plain"):
            return loop.begin(model, sampler, params, tokens, segments, key, stop, room)

    def run(params: Any, state: loop.State, count: Any) -> tuple[loop.State, jax.Array]:
        with plain_forms(execution.kernels == "plain"):
            return loop.run(model, sampler, params, state, count, STREAMED)

    return jax.jit(begin, static_argnames="room"), jax.jit(run, donate_argnums=1)
