"""The programs of decoding: a prompt becomes a state, and a state is advanced by a run of tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from lm.infer.sampling import Sampler
from lm.models import Cache, Decoder, DecoderModel, Execution, Model
from lm.models.stack import Reads
from lm.nn import param

RUN = 32  # tokens of a run: between two, what was added to a cache is moved to where it stays


class State(NamedTuple):
    """What decoding goes on from: the newest token of each row, which isn't in the cache yet, and its number."""

    cache: Cache
    token: jax.Array  # [B]
    position: jax.Array  # [B]
    number: jax.Array  # [] how many tokens were made, this one included
    going: jax.Array  # [B] rows whose tokens are still wanted
    key: jax.Array
    stop: jax.Array  # [] a row ends with this token; -1: with none


@functools.lru_cache(maxsize=16)
def graph(model: Model) -> nnx.GraphDef:
    return param.split(nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0))))[0]


Advance = Callable[[jax.Array, jax.Array, jax.Array, Cache], tuple[jax.Array, Cache]]


def advance(model: Decoder, params: param.Params) -> Advance:
    """A function that feeds tokens [B L] with their positions and segments after a cache.

    It gives the logits [B V] after the last of them, and the cache.
    """
    return feeding(param.merge(graph(model), params))


def feeding(module: DecoderModel, context: Reads = None) -> Advance:
    """`advance` of a decoder that is there. context: what each of its layers reads of an encoder's output."""
    layers = module.layers()

    def feed(tokens: jax.Array, positions: jax.Array, segments: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        hidden = module.hidden(tokens, positions, segments, cache, Execution(), layers=layers, context=context)
        assert hidden.cache is not None
        return module.logits(hidden.h[:, -1:])[:, 0], hidden.cache

    return feed


def begin(
    model: Decoder,
    sampler: Sampler,
    params: param.Params,
    tokens: jax.Array,
    segments: jax.Array,
    key: jax.Array,
    stop: jax.Array,
    room: int,
) -> State:
    """Prompts [B L], padded on the left with segment 0, as the state of their first new token.

    room: how many tokens can follow the prompt.
    """
    batch, length = tokens.shape
    cache = param.merge(graph(model), params).init_cache(batch, length + room, dtype=params["embedding"].dtype)
    return first(advance(model, params), sampler, cache, tokens, segments, key, stop)


def first(
    feed: Advance,
    sampler: Sampler,
    cache: Cache,
    tokens: jax.Array,
    segments: jax.Array,
    key: jax.Array,
    stop: jax.Array,
) -> State:
    """`begin` with an empty cache that is there."""
    positions = positions_in(segments)
    logits, cache = feed(tokens, positions, segments, cache)
    token = sampler(logits, jax.random.fold_in(key, 0))
    return State(cache, token, positions[:, -1] + 1, jnp.int32(1), token != stop, key, stop)


def positions_in(segments: jax.Array) -> jax.Array:
    """Of one document a row [B L], wherever its padding is."""
    return jnp.maximum(jnp.cumsum(segments != 0, axis=1) - 1, 0)


def run(
    model: Decoder, sampler: Sampler, params: param.Params, state: State, count: jax.Array, most: int = RUN
) -> tuple[State, jax.Array]:
    """Up to `count` more tokens, at most `most`; fewer where every row has ended. Their array is [most, B]."""
    return more(advance(model, params), sampler, state, count, most)


def more(feed: Advance, sampler: Sampler, state: State, count: jax.Array, most: int = RUN) -> tuple[State, jax.Array]:
    """`run` with the function that feeds tokens."""
    opened = [layer.begin(most) for layer in state.cache]
    fixed, moving = zip(*(layer.split() for layer in opened), strict=True)
    ones = jnp.ones((len(state.token), 1), jnp.int32)

    def cache_of(moving: Any) -> Cache:
        return tuple(layer.join(*parts) for layer, *parts in zip(opened, fixed, moving, strict=True))

    def wanted(carry: tuple[Any, State, jax.Array, jax.Array]) -> jax.Array:
        return (carry[2] < jnp.minimum(count, most)) & jnp.any(carry[1].going)

    def one(carry: tuple[Any, State, jax.Array, jax.Array]) -> tuple[Any, State, jax.Array, jax.Array]:
        moving, state, i, out = carry
        position = state.position[:, None]
        logits, cache = feed(state.token[:, None], position, ones, cache_of(moving))
        token = sampler(logits, jax.random.fold_in(state.key, state.number))
        going = state.going & (token != state.stop)
        state = state._replace(token=token, position=state.position + 1, number=state.number + 1, going=going)
        return tuple(layer.split()[1] for layer in cache), state, i + 1, out.at[i].set(token)

    out = jnp.zeros((most, len(state.token)), jnp.int32)
    carry = moving, state._replace(cache=()), jnp.int32(0), out
    moving, state, _, out = lax.while_loop(wanted, one, carry)
    return state._replace(cache=tuple(layer.end() for layer in cache_of(moving))), out


def until(
    some: Callable[[State, jax.Array], tuple[State, jax.Array]], state: State, new_tokens: jax.Array, room: int
) -> jax.Array:
    """All tokens [room + RUN, B], the state's first: `some(state, left)` gives a run of those that are left."""
    out = jnp.zeros((room + RUN, len(state.token)), jnp.int32).at[0].set(state.token)

    def wanted(carry: tuple[State, jax.Array]) -> jax.Array:
        return (carry[0].number < new_tokens) & jnp.any(carry[0].going)

    def step(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, out = carry
        after, made = some(state, new_tokens - state.number)
        return after, lax.dynamic_update_slice_in_dim(out, made, state.number, axis=0)

    return lax.while_loop(wanted, step, (state, out))[1]
