"""What a recurrent mixer keeps of the tokens before: a state, the last inputs of its convolutions, and their document.

A mixer is written once, as a function of tokens and of the past before them. Training starts from an empty past and
drops the one after; decoding one token is the same function of one token.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from lm.nn.cache import Cache
from lm.nn.mixer import MixerLayer
from lm.shapes import Array, Bool, Float, Int

Tails = dict[str, jax.Array]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["tails", "state", "document"], meta_fields=[])
@dataclass(frozen=True)
class Past(Cache):
    """The past of a recurrent layer, as large after a million tokens as after one.

    tails: the last inputs of each convolution, [B T *C], the oldest first; those of other documents than the last are
    0. state: float32 whatever the type of the computation, since it is a sum over all tokens, in which a bfloat16
    would lose each small addition to a large value. document: that of the last token, 0 before the first.
    """

    tails: Tails
    state: jax.Array
    document: jax.Array  # [B]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["document", "resets", "real"], meta_fields=[])
@dataclass(frozen=True)
class Tokens:
    """Where documents begin in a row, and which tokens are real."""

    document: Int[Array, "B L"]
    resets: Bool[Array, "B L"]  # tokens that begin a document: they know nothing of what was before
    real: Bool[Array, "B L"]  # padding isn't, and leaves every state as it was


class RecurrentLayer(MixerLayer):
    """A mixer with a state. A document is a run of tokens of one segment."""

    def __call__(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], segments: Int[Array, "B L"], cache: Any = None
    ) -> tuple[Float[Array, "B L D"], Any]:
        document = jnp.abs(segments)
        if cache is None:
            return self.mix(x, positions, tokens(document), self.init_cache(len(x), 0, x.dtype))[0], None
        if x.shape[1] == 1:
            return self.mix(x, positions, tokens(document, cache.document), cache)
        # Padding on the left of a prompt would stand between it and its past: real tokens go first, and back.
        order = jnp.argsort(document == 0, axis=1, stable=True)
        x, positions, document = (_ordered(a, order) for a in (x, positions, document))
        y, cache = self.mix(x, positions, tokens(document, cache.document), cache)
        return _ordered(y, jnp.argsort(order, axis=1)), cache

    def mix(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], tokens: Tokens, past: Past
    ) -> tuple[Float[Array, "B L D"], Past]:
        """What the layer gives for tokens after `past`, and the past after them. In a row with a past, padding is at
        the end."""
        raise NotImplementedError

    def init_cache(self, batch: int, length: int, dtype: Any) -> Past:
        raise NotImplementedError


def tokens(document_BL: Int[Array, "B L"], last_B: Int[Array, " B"] | None = None) -> Tokens:
    """last_B: the document of the token before each row."""
    before = document_BL[:, :1] if last_B is None else last_B[:, None]
    before = jnp.concatenate([before, document_BL[:, :-1]], axis=1)
    real = document_BL > 0
    return Tokens(document_BL, real & (document_BL != before), real)


def last_document(tokens: Tokens, past: Past) -> Int[Array, " B"]:
    """The document of the last real token, that of `past` if there is none."""
    count = tokens.real.sum(axis=1)
    last = jnp.take_along_axis(tokens.document, jnp.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
    return jnp.where(count > 0, last, past.document)


def _ordered(x: jax.Array, order_BL: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, order_BL.reshape(order_BL.shape + (1,) * (x.ndim - 2)), axis=1)
