"""The documents of packed rows, and rows of pairs that documents become."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm.data.packing import Batch


class Document(NamedTuple):
    """A document's part in a row: its segment, where it lies, its tokens and their weights [n]."""

    segment: int
    place: slice
    tokens: np.ndarray
    weights: np.ndarray

    def text(self, eot: int) -> np.ndarray:
        """Its tokens without the end of the document, which only its last part has."""
        return self.tokens[:-1] if self.tokens[-1] == eot else self.tokens


class Pair(NamedTuple):
    """What is read, what is written, and the weights of that: [n], [m], [m]."""

    source: np.ndarray
    target: np.ndarray
    weights: np.ndarray


def documents(batch: Batch, row: int) -> list[Document]:
    """The parts of documents that a row has, as targets of the batch."""
    segments = batch["segments"][row]
    edges = np.flatnonzero(np.diff(segments, prepend=0, append=0))
    found = []
    for low, high in itertools.pairwise(edges):
        if segments[low] > 0:
            place = slice(int(low), int(high))
            found.append(
                Document(int(segments[low]), place, batch["targets"][row, place], batch["weights"][row, place])
            )
    return found


Row = list[tuple[int, Pair]]  # pairs with their documents' segments


def fitting(pairs: Row, sources: int, targets: int, rng: np.random.Generator) -> Row:
    """The pairs that fit into so many tokens of each side: taken in a random order, left in their own."""
    kept = []
    for index in rng.permutation(len(pairs)):
        source, target, _ = pairs[index][1]
        if len(source) <= sources and len(target) <= targets:
            kept.append(index)
            sources, targets = sources - len(source), targets - len(target)
    return [pairs[index] for index in sorted(kept)]


def for_encoder_decoder(rows: Sequence[Row], sources: int, targets: int, start: int) -> Batch:
    """Sources for the encoder and targets for the decoder, one behind the other. A target's first token is predicted
    from `start`."""
    count = len(rows)
    ints = {f"encoder_{name}": np.zeros((count, sources), np.int32) for name in ("tokens", "positions", "segments")}
    batch = ints | _empty(count, targets)
    for row, pairs in enumerate(rows):
        s = t = 0
        for segment, pair in pairs:
            there, t = slice(t, t + len(pair.target)), t + len(pair.target)
            _write(batch, row, there, segment, pair, start)
            here, s = slice(s, s + len(pair.source)), s + len(pair.source)
            batch["encoder_tokens"][row, here] = pair.source
            batch["encoder_positions"][row, here] = np.arange(len(pair.source))
            batch["encoder_segments"][row, here] = segment
    return batch


def for_decoder(rows: Sequence[Row], length: int, start: int) -> Batch:
    """Each source as the prefix, by its negative segment, of what an encoder-decoder's decoder reads."""
    batch = _empty(len(rows), length)
    for row, pairs in enumerate(rows):
        at = 0
        for segment, pair in pairs:
            here, at = slice(at, at + len(pair.source)), at + len(pair.source)
            batch["tokens"][row, here] = pair.source
            batch["positions"][row, here] = np.arange(len(pair.source))
            batch["segments"][row, here] = -segment
            there, at = slice(at, at + len(pair.target)), at + len(pair.target)
            _write(batch, row, there, segment, pair, start)
            batch["positions"][row, there] += len(pair.source)
    return batch


def _empty(rows: int, length: int) -> Batch:
    ints = {name: np.zeros((rows, length), np.int32) for name in ("tokens", "targets", "positions", "segments")}
    return {**ints, "weights": np.zeros((rows, length), np.float32)}


def _write(batch: Batch, row: int, there: slice, segment: int, pair: Pair, start: int) -> None:
    """What a decoder is given of a pair, and what it predicts."""
    batch["tokens"][row, there] = np.concatenate([[start], pair.target[:-1]])
    batch["targets"][row, there] = pair.target
    batch["positions"][row, there] = np.arange(len(pair.target))
    batch["segments"][row, there] = segment
    batch["weights"][row, there] = pair.weights
