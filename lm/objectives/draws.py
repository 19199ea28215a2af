"""The random numbers of a batch: functions of the seed, the batch's number and the row's number over all hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

TRAINING, HELDOUT = (1 << 64) - 1, (1 << 64) - 2  # second words of a key, where the order of documents has an epoch


class Draws(NamedTuple):
    """rngs: a generator for each row. strata: a number in [0, 1) for each row; of a whole batch of B rows one lies in
    each of B equal parts, in a random order."""

    rngs: Sequence[np.random.Generator]
    strata: np.ndarray

    def take(self, rows: np.ndarray) -> Draws:
        """Those of some of the rows; their generators go on from where they are."""
        return Draws([self.rngs[row] for row in rows], self.strata[rows])


def draws(seed: int, n: int, first: int, count: int, batch: int, stream: int = TRAINING) -> Draws:
    """Of rows first .. first + count - 1 of batch number n, which has `batch` rows over all hosts."""

    def generator(row: int) -> np.random.Generator:
        key, counter = np.array([seed, stream], np.uint64), np.array([0, row, n, 0], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    shared = generator(0)
    strata = (shared.permutation(batch) + shared.random(batch)) / batch
    return Draws([generator(row + 1) for row in range(first, first + count)], strata[first : first + count])
