"""A Markov source: text whose entropy is known exactly."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from lm.config import ConfigError, config, content_hash
from lm.data.corpora import Corpus

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?-+*/=()[]{}<>@#$%&_|~^"
AT_ONCE = 4096  # documents drawn side by side


@config
class Markov(Corpus):
    """Documents of `length` symbols; each depends on the `order` before it by a table drawn once from `seed`.

    Each row of the table is drawn from a Dirichlet distribution whose weights fall as 1/rank (Zipf), in an order that
    is partly the row's own: `concentration` is their sum, and the smaller it is the more certain the next symbol.
    Contexts are unequally frequent, as words are: larger models and longer training learn more of them.
    A document begins with the chain's stationary distribution.
    """

    licence: ClassVar[str] = "made by lm: no rights"

    symbols: int = 32
    order: int = 2
    concentration: float = 4.0
    documents_count: int = 20_000
    length: int = 127
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.symbols <= len(ALPHABET):
            raise ConfigError(f"symbols={self.symbols} must be from 2 to {len(ALPHABET)}")
        if self.order < 1 or self.symbols**self.order > 1 << 16:
            raise ConfigError(f"{self.symbols} symbols to the order {self.order} make too large a table")
        if self.concentration <= 0 or self.documents_count < 1 or self.length < self.order:
            raise ConfigError("concentration and documents_count are positive, and length is at least the order")

    def fingerprint(self) -> str:
        return content_hash(self, "1")

    def documents(self) -> Iterator[str]:
        letters = np.frombuffer(ALPHABET[: self.symbols].encode(), np.uint8)
        cumulative = np.cumsum(self.table, axis=1)
        begin = np.cumsum(self.stationary)
        for first in range(0, self.documents_count, AT_ONCE):
            count = min(AT_ONCE, self.documents_count - first)
            rng = np.random.Generator(np.random.Philox(key=np.array([self.seed, 1 + first], np.uint64)))
            context = np.searchsorted(begin, rng.random(count) * begin[-1], side="right")
            text = np.empty((count, self.length), np.int64)
            for place in range(self.order):
                text[:, place] = context // self.symbols ** (self.order - 1 - place) % self.symbols
            for place in range(self.order, self.length):
                rows = cumulative[context]
                symbol = (rng.random(count)[:, None] * rows[:, -1:] >= rows).sum(1)
                text[:, place] = symbol
                context = context * self.symbols % self.symbols**self.order + symbol
            yield from (letters[row].tobytes().decode() for row in text)

    @property
    def table(self) -> np.ndarray:
        """Probabilities of the next symbol [contexts, symbols]; a context is a number in base `symbols`."""
        return _table(self.symbols, self.order, self.concentration, self.seed)

    @property
    def stationary(self) -> np.ndarray:
        """How often each context occurs [contexts]."""
        return _stationary(self.symbols, self.order, self.concentration, self.seed)

    def entropy_rate(self) -> float:
        """Nats a symbol, once the context is known: the sum of stationary probabilities times row entropies."""
        return float(self.stationary @ _entropy(self.table))

    def entropy(self) -> float:
        """Nats of a whole document, divided by its `length` + 1 tokens: its symbols and the mark that ends it, which
        is certain since all documents are equally long. The least loss of a model whose rows are whole documents
        (`Data.length` = `length` + 1).

        The first `order` symbols are drawn from the stationary distribution; from there it is `entropy_rate` each.
        """
        first = -float(np.sum(_plogp(self.stationary)))
        return (first + (self.length - self.order) * self.entropy_rate()) / (self.length + 1)


@functools.lru_cache(maxsize=4)
def _table(symbols: int, order: int, concentration: float, seed: int) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, 0], np.uint64)))
    zipf = 1 / np.arange(1, symbols + 1)
    weights = concentration * zipf / zipf.sum()
    # some symbols are more common than others in every row, or contexts would all be equally frequent
    places = rng.random((symbols**order, symbols)) + np.arange(symbols) / symbols
    ranks = np.argsort(np.argsort(places, axis=1), axis=1)
    # a Gamma variate of a small shape can be exactly 0: a symbol that never follows, which is well defined
    draws = rng.standard_gamma(weights[ranks]) + 1e-300
    return draws / draws.sum(1, keepdims=True)


@functools.lru_cache(maxsize=4)
def _stationary(symbols: int, order: int, concentration: float, seed: int) -> np.ndarray:
    """By repeated multiplication, until nothing changes."""
    table = _table(symbols, order, concentration, seed)
    contexts = len(table)
    following = np.arange(contexts)[:, None] * symbols % contexts + np.arange(symbols)
    now = np.full(contexts, 1 / contexts)
    for _ in range(100_000):
        new = np.bincount(following.ravel(), (now[:, None] * table).ravel(), contexts)
        if np.abs(new - now).sum() < 1e-15:
            break
        now = new
    return new / new.sum()


def _entropy(rows: np.ndarray) -> np.ndarray:
    return -_plogp(rows).sum(1)


def _plogp(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.where(p > 0, p, 1.0))
