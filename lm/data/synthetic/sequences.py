"""Sequences to write down again: as they are, backwards, or sorted."""

from __future__ import annotations

import abc
import string

import numpy as np

from lm.config import ConfigError, config
from lm.data.synthetic.task import MARK, Examples, Task


@config
class Rewriting(Task):
    """MARK x_1 .. x_n > y_1 .. y_n MARK: y is x in another order. The last MARK is an answer: n varies.

    n is uniform from `shortest` to `longest`; each x is one of `alphabet` symbols (letters up to 26, otherwise the
    numbers from 0), uniform and independent of the others.
    """

    alphabet: int = 26
    shortest: int = 4
    longest: int = 12

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.alphabet < 2:
            raise ConfigError(f"{name}.alphabet={self.alphabet} must be at least 2, or there is nothing to tell apart")
        if not 1 <= self.shortest <= self.longest:
            lengths = f"shortest={self.shortest}, longest={self.longest}"
            raise ConfigError(f"{name}: {lengths} must be lengths from 1 on, the longest at least the shortest")

    @abc.abstractmethod
    def keys(self, asked: np.ndarray) -> np.ndarray:
        """A number for each symbol of the question [n, longest]: they are answered in its rising order."""

    @property
    def symbols(self) -> tuple[str, ...]:
        numbers = (f" {number}" for number in range(self.alphabet))
        letters = string.ascii_lowercase[: self.alphabet]
        return (*(letters if self.alphabet <= len(string.ascii_lowercase) else numbers), ">")

    @property
    def length(self) -> int:
        return 2 * self.longest + 2

    @property
    def draws(self) -> int:
        return 1 + self.longest

    def make(self, u: np.ndarray) -> Examples:
        sizes = self.shortest + (u[:, 0] * (self.longest + 1 - self.shortest)).astype(np.int64)
        asked = 1 + (u[:, 1:] * self.alphabet).astype(np.int64)
        return written(asked, arranged(asked, self.keys(asked), sizes), sizes, separator=self.alphabet + 1)


@config
class Copying(Rewriting):
    """The sequence again."""

    def keys(self, asked: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.arange(self.longest), asked.shape)


@config
class Reversing(Rewriting):
    """The sequence backwards."""

    def keys(self, asked: np.ndarray) -> np.ndarray:
        return np.broadcast_to(-np.arange(self.longest), asked.shape)


@config
class Sorting(Rewriting):
    """The sequence in rising order. A symbol may occur several times, in the answer as in the question."""

    alphabet: int = 64

    def keys(self, asked: np.ndarray) -> np.ndarray:
        return asked


def arranged(items: np.ndarray, keys: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The first sizes [n] of each row of items [n, longest] in rising order of keys [n, longest]; equal keys keep
    theirs."""
    outside = np.arange(items.shape[1]) >= sizes[:, None]
    order = np.argsort(np.where(outside, np.inf, keys), axis=1, kind="stable")
    return np.take_along_axis(items, order, axis=1)


def written(asked: np.ndarray, told: np.ndarray, sizes: np.ndarray, *, separator: int) -> Examples:
    """Rows MARK question separator answer MARK, of the first sizes [n] of asked and of told [n, longest]."""
    count, longest = asked.shape
    sizes, places = sizes[:, None], np.arange(2 * longest + 3)
    inside = places[:longest] < sizes
    tokens = np.full((count, len(places)), MARK)
    tokens[:, 1 : longest + 1] = np.where(inside, asked, MARK)
    np.put_along_axis(tokens, sizes + 1, separator, axis=1)
    # both masks have `sizes` places in each row, which are filled in the order they are read
    tokens[(places > sizes + 1) & (places < 2 * sizes + 2)] = told[inside]
    return Examples(tokens, (places > sizes + 1) & (places <= 2 * sizes + 2))
