"""A task: examples by number, from a generator that is a pure function of them."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np

from lm.config import content_hash

MARK = 0  # the token that begins every row, ends an answer of free length and fills what is left


class Examples(NamedTuple):
    """Rows of tokens. tokens [n, length + 1] ints, each row beginning with MARK; answers [n, length + 1] bool: the
    tokens that a model has to predict, from all that stands before them. What isn't an answer is the question."""

    tokens: np.ndarray
    answers: np.ndarray


class Task(abc.ABC):
    """A source of examples without end. A task is a config whose fields say how difficult it is.

    Everything random about example n comes from `draws` numbers in [0, 1) that are its own, so that examples are the
    same on every machine, in whatever batches they are read.
    """

    licence: ClassVar[str] = "made by lm: no rights"

    @property
    @abc.abstractmethod
    def symbols(self) -> tuple[str, ...]:
        """The text of each token, from token 1 on; token 0 is MARK. All different, none empty."""

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """Tokens of a row that a model reads; an example has one more, which it only predicts."""

    @property
    @abc.abstractmethod
    def draws(self) -> int:
        """Random numbers that an example takes."""

    @abc.abstractmethod
    def make(self, u: np.ndarray) -> Examples:
        """Examples from their random numbers u [n, draws], float64 in [0, 1). Row i depends on u[i] alone."""

    @property
    def answer_tokens(self) -> int | None:
        """How many of a row's last answers are the answer proper, where those before them are work on the way to it;
        None: all."""
        return None

    def golds(self, examples: Examples) -> Mapping[str, np.ndarray]:
        """What theory gives for these examples: name -> the loss in nats of each answer, [n, answers a row], in the
        order of the row. Only for tasks whose rows all have equally many answers."""
        del examples
        return {}

    @property
    def kind_names(self) -> tuple[str, ...]:
        """What its kinds are called, where numbers don't say enough."""
        return ()

    def kinds(self, examples: Examples) -> np.ndarray | None:
        """The number of the subtask [n] that each example is of; None where there are none."""
        del examples
        return None

    def fingerprint(self) -> str:
        """A hash of all that its examples depend on besides their numbers."""
        return content_hash(self)

    @property
    def vocab(self) -> int:
        return len(self.symbols) + 1


def uniforms(seed: int, stream: int, first: int, count: int, width: int) -> np.ndarray:
    """Numbers in [0, 1) [count, width], float64: row i is that of example first + i, whatever the count.

    Philox is a function of key and counter, so each example has counters of its own (Salmon et al. 2011).
    """
    blocks = -(-width // 4)  # a counter gives four words
    generator = np.random.Philox(key=np.array([seed, stream], np.uint64), counter=first * blocks)
    words = generator.random_raw(count * blocks * 4).reshape(count, blocks * 4)[:, :width]
    return (words >> np.uint64(11)) * 2.0**-53
