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
BLOCK = 1 << 16  # tokens worked on at once: the intermediates stay in the processor's cache


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
        shape = (rows, self.length)
        batch: Batch = {name: np.empty(shape, np.int32) for name in ("tokens", "targets", "positions", "segments")}
        block = max(1, BLOCK // self.length)
        for low in range(0, rows, block):
            part = {name: value[low : low + block] for name, value in batch.items()}
            self._fill(order, first + low, **part)
        batch["weights"] = (batch["segments"] > 0).astype(np.float32)
        return batch

    def _fill(
        self,
        order: Order,
        first: int,
        tokens: np.ndarray,
        targets: np.ndarray,
        positions: np.ndarray,
        segments: np.ndarray,
    ) -> None:
        rows, T = tokens.shape
        low = first * T
        high = max(low, min(low + rows * T, int(order.starts[-1])))  # inputs are the stream's tokens low .. high - 1
        real = high - low
        begin = int(np.searchsorted(order.starts, low, side="right")) - 1
        end = max(begin, int(np.searchsorted(order.starts, high, side="left")))
        starts = order.starts[begin : end + 1]
        inside = np.diff(np.clip(starts, low, high))  # tokens of each document here
        shift = self.split.offsets[order.documents[begin:end]] - starts[:-1] + low
        stream = np.full(rows * T + 1, self.eot, np.int32)
        stream[:real] = self.split.tokens[np.repeat(shift, inside) + np.arange(real)]
        if high < order.starts[-1]:
            stream[real] = self._token_at(order, high)
        tokens[:] = stream[:-1].reshape(rows, T)
        targets[:] = stream[1:].reshape(rows, T)

        column = np.arange(T, dtype=np.int32)
        back = np.maximum(starts[:-1] - low, -T).astype(np.int32)  # further back than a row makes no difference
        flat = positions.reshape(-1)
        flat[:real] = np.arange(real, dtype=np.int32) - np.repeat(back, inside)
        np.minimum(positions, column, out=positions)
        flat[real:] = 0
        flat = segments.reshape(-1)
        flat[:real] = np.repeat(np.arange(1, len(inside) + 1, dtype=np.int32), inside)
        segments -= segments[:, :1] - 1
        flat[real:] = 0

    def _token_at(self, order: Order, index: int) -> int:
        k = int(np.searchsorted(order.starts, index, side="right")) - 1
        return int(self.split.tokens[self.split.offsets[order.documents[k]] + index - order.starts[k]])


def concatenate(parts: list[Batch]) -> Batch:
    """Batches one below the other."""
    return parts[0] if len(parts) == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
