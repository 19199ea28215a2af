"""Rows of a stream of documents, found by arithmetic: no state, so any row can be had at any time.

An epoch is a fresh order of all documents, each as `eot d1 .. dn`, one after another. Row r reads the T tokens
from rT on and predicts the T tokens from rT + 1 on. What follows the last document is an `eot` again, so that
every token of the stream is predicted exactly once; what is left of the last row is padding.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from lm.data.store import Split

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Order:
    """Documents in the order of one epoch, and where each starts in its stream ([documents + 1], the end last)."""

    documents: np.ndarray
    starts: np.ndarray


class Stream:
    """A split read in rows of `length` tokens."""

    def __init__(self, split: Split, length: int, eot: int) -> None:
        self.split = split
        self.length = length
        self.eot = eot
        self.rows = -(-len(split.tokens) // length)
        self.shuffled = functools.lru_cache(maxsize=3)(self._shuffled)

    def _shuffled(self, seed: int, epoch: int) -> Order:
        # Sorting raw Philox words, because NumPy promises those for ever, and Generator.permutation it doesn't.
        words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(self.split.documents)
        return self._order(np.argsort(words, kind="stable"))

    @functools.cached_property
    def in_order(self) -> Order:
        """The corpus's own order."""
        return self._order(np.arange(self.split.documents))

    def _order(self, documents: np.ndarray) -> Order:
        starts = np.zeros(len(documents) + 1, np.int64)
        np.cumsum(np.diff(self.split.offsets)[documents], out=starts[1:])
        return Order(documents, starts)

    def read(self, order: Order, first: int, rows: int) -> Batch:
        """Rows first .. first + rows - 1 of an epoch: arrays [rows, length]. Rows past its end are all padding."""
        T, total = self.length, int(order.starts[-1])
        low = first * T
        high = max(low, min(low + rows * T, total))  # inputs are the stream's tokens low .. high - 1
        begin = int(np.searchsorted(order.starts, low, side="right")) - 1
        end = int(np.searchsorted(order.starts, high, side="left"))
        starts = order.starts[begin : end + 1]
        inside = np.diff(np.clip(starts, low, high))  # tokens of each document here
        document = np.repeat(np.arange(len(inside)), inside)
        index = np.arange(low, high)
        source = index + np.repeat(self.split.offsets[order.documents[begin:end]] - starts[:-1], inside)
        tokens = np.full(rows * T + 1, self.eot, np.int32)
        tokens[: high - low] = self.split.tokens[source]
        if high < total:
            tokens[high - low] = self._token_at(order, high)
        segments = np.zeros(rows * T, np.int32)
        positions = np.zeros(rows * T, np.int32)
        row_start = np.arange(high - low) // T * T
        segments[: high - low] = document - document[row_start] + 1
        positions[: high - low] = index - np.maximum(low + row_start, starts[document])
        batch = {"tokens": tokens[:-1], "targets": tokens[1:].copy(), "positions": positions, "segments": segments}
        batch["weights"] = (segments > 0).astype(np.float32)
        return {name: value.reshape(rows, T) for name, value in batch.items()}

    def _token_at(self, order: Order, index: int) -> int:
        k = int(np.searchsorted(order.starts, index, side="right")) - 1
        return int(self.split.tokens[self.split.offsets[order.documents[k]] + index - order.starts[k]])


def concatenate(parts: list[Batch]) -> Batch:
    """Batches one below the other."""
    return parts[0] if len(parts) == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
