"""Facts that are told and then asked for: one look-up, or several in a chain."""

from __future__ import annotations

import numpy as np

from lm.config import ConfigError, config
from lm.data.synthetic.task import MARK, Examples, Task


@config
class KeyValueRecall(Task):
    """Multi-query associative recall (Arora et al. 2023, "Zoology"): MARK k v k v .. and then again k v k v ..

    First come `pairs` different keys, each with a value; then `queries` of these keys, all different and in random
    order, each followed by its value, which is an answer. Values are uniform and may be shared by keys.
    """

    pairs: int = 8
    keys: int = 64
    values: int = 64
    queries: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= self.keys:
            raise ConfigError(
                f"KeyValueRecall.pairs={self.pairs} must be from 1 to its {self.keys} keys: each is told once"
            )
        if not 1 <= self.queries <= self.pairs:
            raise ConfigError(f"KeyValueRecall.queries={self.queries} must be from 1 to its {self.pairs} pairs")
        if self.values < 2:
            raise ConfigError(f"KeyValueRecall.values={self.values} must be at least 2, or the answer is known")

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*(f" k{key}" for key in range(self.keys)), *(f" v{value}" for value in range(self.values)))

    @property
    def length(self) -> int:
        return 2 * (self.pairs + self.queries)

    @property
    def draws(self) -> int:
        return 2 * self.pairs + self.queries

    def make(self, u: np.ndarray) -> Examples:
        keys = 1 + different(u[:, : self.pairs], self.keys)
        values = 1 + self.keys + (u[:, self.pairs : 2 * self.pairs] * self.values).astype(np.int64)
        told = np.stack([keys, values], axis=2)
        asked = np.take_along_axis(told, different(u[:, 2 * self.pairs :], self.pairs)[:, :, None], axis=1)
        tokens = np.pad(
            np.concatenate([told, asked], axis=1).reshape(len(u), -1), ((0, 0), (1, 0)), constant_values=MARK
        )
        places = np.arange(self.length + 1)
        answer = (places > 2 * self.pairs) & (places % 2 == 0)
        return Examples(tokens, np.broadcast_to(answer, tokens.shape).copy())


@config
class MultiHop(Task):
    """MARK a b a b .. ? start answer: a fact `a b` leads from a to b, and the answer is `hops` of them from the start.

    The facts, in random order, lead round one random cycle of `facts` of the entities: each of these begins one fact
    and ends one, so that nothing but following them tells the answer. With one hop it is a look-up; each further one
    takes another step of thought.
    """

    entities: int = 32
    facts: int = 12
    hops: int = 2

    def __post_init__(self) -> None:
        if not 2 <= self.facts <= self.entities:
            raise ConfigError(
                f"MultiHop.facts={self.facts} must be from 2 to its {self.entities} entities: one from each"
            )
        if not 1 <= self.hops <= self.facts // 2:
            raise ConfigError(
                f"MultiHop.hops={self.hops} must be from 1 to {self.facts // 2}, half of its {self.facts} facts: "
                "beyond that the way back round the cycle is shorter"
            )

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*(f" e{entity}" for entity in range(self.entities)), " ?")

    @property
    def length(self) -> int:
        return 2 * self.facts + 3

    @property
    def draws(self) -> int:
        return 2 * self.facts

    def make(self, u: np.ndarray) -> Examples:
        cycle = 1 + different(u[:, : self.facts], self.entities)
        facts = np.stack([cycle, np.roll(cycle, -1, axis=1)], axis=2)
        facts = np.take_along_axis(facts, different(u[:, self.facts :], self.facts)[:, :, None], axis=1)
        tokens = np.full((len(u), self.length + 1), MARK)
        tokens[:, 1:-3] = facts.reshape(len(u), -1)
        tokens[:, -3] = self.entities + 1
        tokens[:, -2], tokens[:, -1] = cycle[:, 0], cycle[:, self.hops]
        return Examples(tokens, np.broadcast_to(np.arange(self.length + 1) == self.length, tokens.shape).copy())


def different(u: np.ndarray, below: int) -> np.ndarray:
    """Different numbers from 0 to `below` - 1, in random order [n, k], from their random numbers u [n, k].

    The first k cards of a deck that is shuffled from the top (Fisher and Yates): exactly uniform.
    """
    count, k = u.shape
    rows, deck = np.arange(count), np.tile(np.arange(below), (count, 1))
    for top in range(k):
        chosen = top + (u[:, top] * (below - top)).astype(np.int64)
        deck[rows, chosen], deck[:, top] = deck[:, top], deck[rows, chosen]
    return deck[:, :k]
