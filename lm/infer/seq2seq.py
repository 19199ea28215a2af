"""Generation by encoder-decoders: the source is encoded once, and what cross-attention reads of it is made once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.infer import loop
from lm.infer.generate import bucket, padded, rows_of
from lm.infer.sampling import Greedy, Sampler
from lm.models import EncoderDecoder, Execution
from lm.nn import param
from lm.nn.kernels.platform import plain_forms


def generate(
    model: EncoderDecoder,
    params: param.Params,
    sources: Sequence[Sequence[int]],
    new_tokens: int,
    start: int,
    stop: int | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    execution: Execution | None = None,
) -> list[list[int]]:
    """For each source (tokens, any lengths) up to `new_tokens` tokens of a target, ending before its first `stop`.

    start: the token that every target begins with, which isn't among those given (`decoder_start_token_id`). Otherwise
    as `lm.infer.generate`: lengths are rounded up for compiling, and the tokens don't depend on it.
    Raises UserError for an empty source, ConfigError where the model has no positions for so many tokens.
    """
    tokens, segments = padded(sources, new_tokens)
    model.encoder.check_context(max(map(len, sources)))
    model.decoder.check_context(new_tokens)
    execution = execution or Execution()
    cast = execution.cast(loop.graph(model), params)
    begin, stopped = np.int32(start), np.int32(-1 if stop is None else stop)
    program = _program(model, sampler or Greedy(), execution)
    arrays = cast, tokens, segments, begin, jax.random.key(seed), stopped, np.int32(new_tokens)
    return rows_of(program(*arrays, room=bucket(new_tokens)), new_tokens, stop)


@functools.lru_cache(maxsize=16)
def _program(model: EncoderDecoder, sampler: Sampler, execution: Execution) -> Any:
    """(params, sources [B S], segments [B S], start, key, stop, new_tokens, room) -> tokens [room + RUN, B]."""

    def whole(
        params: Any, tokens: Any, segments: Any, start: Any, key: Any, stop: Any, new_tokens: Any, *, room: int
    ) -> jax.Array:
        with plain_forms(execution.kernels == "plain"):
            module = param.merge(loop.graph(model), params)
            context, decoder = module.encode(tokens, loop.positions_in(segments), segments), module.decoder
            dtype = params["decoder"]["embedding"].dtype
            feed = loop.feeding(decoder, decoder.contexts(context, dtype))
            first = jnp.full((len(tokens), 1), start)
            cache = decoder.init_cache(len(tokens), 1 + room, dtype)
            state = loop.first(feed, sampler, cache, first, jnp.ones_like(first), key, stop)
            return loop.until(partial(loop.more, feed, sampler), state, new_tokens, room)

    return jax.jit(whole, static_argnames="room")
