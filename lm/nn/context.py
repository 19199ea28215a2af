"""The context of language models before recurrent ones: a window of words joined end to end, or a bag of them."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from lm.config import ConfigError, config
from lm.nn.cost import Cost, dense, weights
from lm.nn.feedforward import to_residual
from lm.nn.kernels.linear import linear
from lm.nn.kernels.spread import spread
from lm.nn.linear import Dims, Linear
from lm.nn.mask import Mask
from lm.nn.mixer import Mixer
from lm.nn.ssm.cache import Past, RecurrentLayer, Tokens, last_document
from lm.shapes import Array, Bool, Float, Int


@config
class Direct:
    """Connections from the words to the output, past the hidden layer."""


@config
class FixedWindow(Mixer):
    """The neural probabilistic language model (Bengio et al. 2003, equation 1): U tanh(d + H x) + W x, where x is the
    vectors of the last `tokens` tokens, this one included, joined end to end; 0 stands before a document's start.

    hidden None: the hidden layer is as wide as the model and U is the model's output head, so that a Decoder of one
    such block is the paper's network (but for its output bias); else a projection to the width. direct: the term W x,
    which goes through the model's width here, where the paper's W goes to the vocabulary.

        Decoder(vocab=V, width=h, layers=1, block=Block(mixer=FixedWindow(tokens=n), norm=None, residual=Plain()),
                norm=None, tied=False)
    """

    tokens: int
    hidden: int | None = None
    direct: Direct | None = None

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ConfigError(f"tokens={self.tokens} must be at least 1: this token is one of them")
        if self.hidden is not None and self.hidden < 1:
            raise ConfigError(f"hidden={self.hidden} must be at least 1, or None for the model's width")

    @property
    def mask(self) -> Mask:
        """Which tokens one of them sees."""
        return Mask(window=self.tokens)

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> FixedWindowLayer:
        return FixedWindowLayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        hidden = self.hidden or width
        total = dense(self.tokens * width, hidden, length) + weights(hidden)
        total += Cost(cache=(self.tokens - 1) * width)
        if self.direct is not None:
            total += dense(self.tokens * width, width, length)
        return total if self.hidden is None else total + dense(hidden, width, length)


class Joined(nnx.Module):
    """A linear map of several tokens' vectors joined end to end: a matrix for each place, 0 being the newest token."""

    def __init__(self, places: int, inputs: Dims, outputs: Dims, *, bias: bool = False, scale: float, rngs: nnx.Rngs):
        scale /= math.sqrt(places)
        self.places = nnx.Dict(
            {str(i): Linear(inputs, outputs, bias=bias and i == 0, scale=scale, rngs=rngs) for i in range(places)}
        )

    def __call__(self, window_BLnD: Float[Array, "B L n D"]) -> Float[Array, "B L F"]:
        places = [self.places[str(i)] for i in range(len(self.places))]
        y = linear(window_BLnD, jnp.stack([place.weight[...] for place in places]), contract=2)
        return y if places[0].bias is None else y + spread(places[0].bias[...], y)


class FixedWindowLayer(RecurrentLayer):
    def __init__(self, spec: FixedWindow, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec, self.width = spec, width
        n, hidden, last = spec.tokens, spec.hidden or width, to_residual(depth)
        self.up = Joined(n, {"embed": width}, {"mlp": hidden}, bias=True, scale=1.0, rngs=rngs)
        direct = functools.partial(Joined, n, {"hidden": width}, {"embed": width}, scale=last, rngs=rngs)
        self.direct = None if spec.direct is None else direct()
        down = functools.partial(Linear, {"mlp": hidden}, {"embed": width}, scale=last, rngs=rngs)
        self.down = None if spec.hidden is None else down()

    def mix(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], tokens: Tokens, past: Past
    ) -> tuple[Float[Array, "B L D"], Past]:
        back, length = self.spec.tokens - 1, x.shape[1]
        tail = past.tails["words"]
        words = jnp.concatenate([tail.astype(x.dtype), x], axis=1)
        before = jnp.broadcast_to(past.document[:, None], tail.shape[:2])
        document = jnp.concatenate([before, tokens.document], axis=1)
        places = [slice(back - i, back - i + length) for i in range(back + 1)]
        same = jnp.stack([document[:, place] == tokens.document for place in places], axis=2)
        window_BLnD = jnp.stack([words[:, place] for place in places], axis=2) * same[..., None].astype(x.dtype)

        y = jnp.tanh(self.up(window_BLnD))
        y = y if self.down is None else self.down(y)
        y = y if self.direct is None else y + self.direct(window_BLnD)

        at = tokens.real.sum(axis=1)[:, None] + jnp.arange(back)  # padding is at the end, if anywhere
        last = last_document(tokens, past)
        known = jnp.take_along_axis(document, at, axis=1) == last[:, None]
        tail = jnp.take_along_axis(words, at[..., None], axis=1) * known[..., None]
        return y, Past({"words": tail.astype(past.tails["words"].dtype)}, past.state, last)

    def init_cache(self, batch: int, length: int, dtype: Any) -> Past:
        tail = jnp.zeros((batch, self.spec.tokens - 1, self.width), dtype)
        return Past({"words": tail}, jnp.zeros((batch, 0), jnp.float32), jnp.zeros(batch, jnp.int32))


@config
class BagOfWords(Mixer):
    """The mean of the vectors of all tokens of the document so far, this one included, in whatever order they came.

    It has no parameters: the simplest mixer there is (as the context of CBOW, Mikolov et al. 2013, with no end).
    """

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> BagOfWordsLayer:
        return BagOfWordsLayer(width)

    def cost(self, width: int, length: int) -> Cost:
        return Cost(cache=width + 1)


class BagOfWordsLayer(RecurrentLayer):
    def __init__(self, width: int):
        self.width = width

    def mix(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], tokens: Tokens, past: Past
    ) -> tuple[Float[Array, "B L D"], Past]:
        one = jnp.ones((*x.shape[:2], 1), jnp.float32)  # summed like the vectors, it counts them
        new = jnp.concatenate([x.astype(jnp.float32), one], axis=-1) * tokens.real[..., None]
        new = new.at[:, 0].add(jnp.where(tokens.resets[:, :1], 0, past.state))
        total = sums(new, tokens.resets)
        y = total[..., :-1] / jnp.maximum(total[..., -1:], 1)
        return y.astype(x.dtype), Past(past.tails, total[:, -1], last_document(tokens, past))

    def init_cache(self, batch: int, length: int, dtype: Any) -> Past:
        return Past({}, jnp.zeros((batch, self.width + 1), jnp.float32), jnp.zeros(batch, jnp.int32))


def sums(x_BLD: Float[Array, "B L D"], resets_BL: Bool[Array, "B L"]) -> Float[Array, "B L D"]:
    """The sum of each row's vectors so far, from the last reset on.

    The difference of two sums from the row's beginning would be it but for rounding, which would let a document hear of
    the ones before it.
    """

    def joined(a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        (a_sum, a_reset), (b_sum, b_reset) = a, b
        return jnp.where(b_reset, 0, a_sum) + b_sum, a_reset | b_reset

    return lax.associative_scan(joined, (x_BLD, resets_BL[..., None]), axis=1)[0]
