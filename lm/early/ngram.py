"""n-gram language models with interpolated Kneser-Ney smoothing, counted and asked with sorted arrays.

    model = NGram(order=5).fit(stream, vocab)
    model.log_probs(heldout)

An n-gram's id is its place among all of its order, sorted by the id of its first n - 1 tokens and then by its last. So
an order is one array of integers `id * vocab + token`, exact where hashes would collide; an n-gram is found by
bisection, and all that follow a context lie side by side.

The first token of a document is given, never predicted (in the documents of `lm.data` it is `eot`), and no n-gram
spans two documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm.config import ConfigError, config
from lm.data.errors import DataError
from lm.early.stream import Stream

USUAL = (0.5, 1.0, 1.5)  # where too few n-grams are rare to say anything of those that were never seen


@config
class NGram:
    """Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1998, section 4).

        p(w | h) = (c(hw) - D(c(hw))) / c(h.) + rest(h) p(w | h'),    rest(h) = sum_w D(c(hw)) / c(h.)

    with h' the context h without its first token. c counts n-grams of the highest order; of a lower one how many tokens
    precede it, where each document that begins with it counts as one more. Below the lowest order p is uniform.

    discounts: D of 1, 2, .., and its last number for all larger counts: (0.75,) is absolute discounting. None: the
    three of "modified" Kneser-Ney, of each order from its own counts of counts (Chen and Goodman 1998, equation 26).
    """

    order: int = 5
    discounts: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.order < 1:
            raise ConfigError(f"NGram.order={self.order} must be at least 1")
        given = (USUAL if self.discounts is None else self.discounts) or (0.0,)
        for count, discount in enumerate(given, start=1):
            if not 0 < discount <= count:
                raise ConfigError(f"NGram: discount {discount} of a count of {count} must be above 0, at most {count}")

    def fit(self, stream: Stream, vocab: int) -> NGramModel:
        """The model of these documents, whose tokens are 0 .. vocab - 1. Raises DataError for others."""
        tokens, positions = stream.tokens.astype(np.int64), stream.positions
        if not len(tokens) or positions.max() < 1:
            raise DataError("no document has two tokens, so there is nothing to predict; give a stream of longer ones")
        _check(tokens, vocab)
        levels: list[Level] = []
        keys, ids = np.arange(vocab), tokens
        for order in range(1, self.order + 1):
            if order == self.order:
                counts = np.bincount(ids[positions >= max(order - 1, 1)], minlength=len(keys))
                levels.append(self._level(keys, counts, vocab))
                break
            at = np.flatnonzero(positions >= order)
            longer, first, inverse = np.unique(ids[at - 1] * vocab + tokens[at], return_index=True, return_inverse=True)
            counts = np.bincount(ids[at[first]], minlength=len(keys))  # each longer one once: by what precedes it
            if order > 1:
                counts += np.bincount(ids[positions == order - 1], minlength=len(keys))
            levels.append(self._level(keys, counts, vocab))
            keys, ids = longer, np.full(len(tokens), -1)
            ids[at] = inverse
        return NGramModel(vocab, tuple(levels))

    def _level(self, keys: np.ndarray, counts: np.ndarray, vocab: int) -> Level:
        discounts = np.array([0.0, *(estimated(counts) if self.discounts is None else self.discounts)])
        taken = discounts[np.minimum(counts, len(discounts) - 1)]
        contexts = keys // vocab
        total = np.bincount(contexts, counts)
        rest = np.divide(np.bincount(contexts, taken), total, out=np.ones(len(total)), where=total > 0)
        share = np.divide(counts - taken, total[contexts], out=np.zeros(len(keys)), where=counts > 0)
        return Level(keys, share, rest)


def estimated(counts: np.ndarray) -> tuple[float, ...]:
    """D of 1, 2, and 3 or more, from how many n-grams were counted once, twice, ..; USUAL where some number of times
    never occurs, as with few tokens that all occur often."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    if (n[1:5] == 0).any():
        return USUAL
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
    return found if all(0 < d <= k for k, d in enumerate(found, start=1)) else USUAL


@dataclass(frozen=True)
class Level:
    """One order. keys [n]: sorted, context * vocab + token, where a context is an id of the order below (of the lowest:
    0). share [n]: what the n-gram adds to p. rest: of each context, what is left for the order below."""

    keys: np.ndarray
    share: np.ndarray
    rest: np.ndarray

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The ids of n-grams, -1 for those that weren't seen."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1)

    def rest_of(self, contexts: np.ndarray) -> np.ndarray:
        """1 for contexts that nothing was seen after, -1 among them."""
        return np.where((contexts >= 0) & (contexts < len(self.rest)), self.rest.take(contexts, mode="clip"), 1.0)


@dataclass(frozen=True)
class NGramModel:
    """p(token | the tokens of its document before it)."""

    vocab: int
    levels: tuple[Level, ...]

    def log_probs(self, stream: Stream) -> np.ndarray:
        """ln p of each token [T]; NaN for the first of each document, which isn't predicted."""
        tokens, positions = stream.tokens.astype(np.int64), stream.positions
        _check(tokens, self.vocab)
        p, contexts = np.full(len(tokens), 1 / self.vocab), np.zeros(len(tokens), np.int64)
        for order, level in enumerate(self.levels, start=1):
            known = (contexts >= 0) & (positions >= order - 1)
            ids = np.full(len(tokens), -1)
            ids[known] = level.find(contexts[known] * self.vocab + tokens[known])
            share = np.where(ids >= 0, level.share[ids], 0)
            p = np.where(known, share + level.rest_of(contexts) * p, p)
            contexts = np.concatenate([[-1], ids[:-1]])
        return np.where(stream.starts, np.nan, np.log(p))

    def bits_per_byte(self, stream: Stream, token_bytes: np.ndarray) -> float:
        """Of all tokens that are predicted; token_bytes [vocab] is `Codec.token_bytes`."""
        predicted = ~stream.starts
        nats = -self.log_probs(stream)[predicted].sum()
        return float(nats / math.log(2) / token_bytes[stream.tokens[predicted]].sum())

    def next(self, context: Sequence[int] | np.ndarray) -> np.ndarray:
        """p of every token [vocab] after these, the document so far; only the last order - 1 of them matter."""
        context = np.asarray(context, np.int64)
        _check(context, self.vocab)
        p = np.full(self.vocab, 1 / self.vocab)
        for length, level in enumerate(self.levels[: len(context) + 1]):
            at = self._id(context[len(context) - length :])
            p *= level.rest_of(np.array([at]))
            begin, end = np.searchsorted(level.keys, [at * self.vocab, (at + 1) * self.vocab]) if at >= 0 else (0, 0)
            p[level.keys[begin:end] % self.vocab] += level.share[begin:end]
        return p

    def sample(self, count: int, context: Sequence[int], rng: np.random.Generator) -> list[int]:
        """`count` tokens after a context."""
        tokens = list(context)
        for _ in range(count):
            chances = np.cumsum(self.next(tokens[-len(self.levels) :]))
            tokens.append(int(np.searchsorted(chances, rng.random() * chances[-1], side="right")))
        return tokens[len(context) :]

    def _id(self, tokens: np.ndarray) -> int:
        """The id of an n-gram among those of its length; 0 of none, -1 of one that wasn't seen."""
        found = 0
        for level, token in zip(self.levels, tokens, strict=False):
            found = int(level.find(np.array(found * self.vocab + token)))
            if found < 0:
                break
        return found


def _check(tokens: np.ndarray, vocab: int) -> None:
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab:
        raise DataError(f"tokens {tokens.min()} to {tokens.max()} aren't all in 0 to {vocab - 1}; raise vocab")
