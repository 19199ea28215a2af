"""Documents one after another, as the models that count read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lm.data.errors import DataError
from lm.data.packing import Batch


@dataclass(frozen=True)
class Stream:
    """tokens [T] of all documents; starts [T]: True at the first token of each."""

    tokens: np.ndarray
    starts: np.ndarray

    def __post_init__(self) -> None:
        if self.tokens.shape != self.starts.shape or self.tokens.ndim != 1:
            raise DataError(f"tokens {self.tokens.shape} and starts {self.starts.shape} must be vectors of one length")
        if len(self.tokens) and not self.starts[0]:
            raise DataError("the first token of a stream starts a document, and starts[0] is False")

    @property
    def positions(self) -> np.ndarray:
        """Of each token in its document, from 0."""
        index = np.arange(len(self.tokens))
        return index - np.maximum.accumulate(np.where(self.starts, index, 0))

    @property
    def document(self) -> np.ndarray:
        """The number of each token's document, from 0."""
        return np.cumsum(self.starts) - 1


def stream(documents: Iterable[Sequence[int] | np.ndarray]) -> Stream:
    """Of token ids by document; empty ones leave nothing."""
    parts = [np.asarray(document, np.int64) for document in documents if len(document)]
    tokens = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    starts = np.zeros(len(tokens), bool)
    starts[np.cumsum([0, *map(len, parts[:-1])])[: len(parts)]] = True
    return Stream(tokens, starts)


def of_batches(batches: Iterable[Batch]) -> Stream:
    """Of training or held-out batches: each document of a row, and the target of its last token.

    So a model that counts predicts just what a network does, from what that sees: a document that goes on in another
    row is another document there.
    """
    rows = [_of_batch(batch) for batch in batches]
    return Stream(np.concatenate([row.tokens for row in rows]), np.concatenate([row.starts for row in rows]))


def _of_batch(batch: Batch) -> Stream:
    segments = batch["segments"]
    real = segments != 0
    edge = np.zeros((len(segments), 1), segments.dtype)
    first = real & (segments != np.concatenate([edge, segments[:, :-1]], axis=1))
    last = real & (segments != np.concatenate([segments[:, 1:], edge], axis=1))
    ends = np.flatnonzero(last[real]) + 1
    tokens = np.insert(batch["tokens"][real].astype(np.int64), ends, batch["targets"][last])
    return Stream(tokens, np.insert(first[real], ends, False))
