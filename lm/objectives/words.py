"""Where words and sentences begin, by the bytes that tokens stand for."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from lm.data.packing import Batch
from lm.data.tokenizers import Codec

SPACE = b" \t\n\r\v\f"
MARKS = (b".", b"!", b"?")


class Pieces(NamedTuple):
    """Of each token id: whether it begins with white space, ends with it, is nothing but that, ends a sentence. The id
    after the data's last, a mask, is as a letter."""

    opens: np.ndarray
    closes: np.ndarray
    blank: np.ndarray
    stops: np.ndarray


@functools.lru_cache(maxsize=8)
def pieces(codec: Codec) -> Pieces:
    each = (*codec.pieces, b"x")
    return Pieces(
        np.array([piece[:1] in SPACE and piece != b"" for piece in each]),
        np.array([piece[-1:] in SPACE and piece != b"" for piece in each]),
        np.array([piece.strip(SPACE) == b"" for piece in each]),
        np.array([piece.rstrip(SPACE).endswith(MARKS) for piece in each]),
    )


def word_starts(batch: Batch, codec: Codec) -> np.ndarray:
    """True [rows, L] at each target that begins a word: white space and what follows it up to the next.

    Punctuation is part of the word before it. A word that two rows share is two.
    """
    kinds, segments = pieces(codec), batch["segments"]
    before, here = batch["targets"][:, :-1], batch["targets"][:, 1:]
    opened = np.where(kinds.opens[here], ~kinds.closes[before], kinds.closes[before] & ~kinds.blank[before])
    starts = np.ones(segments.shape, bool)
    starts[:, 1:] = opened | (segments[:, 1:] != segments[:, :-1])
    return starts


def sentence_starts(tokens: np.ndarray, codec: Codec) -> np.ndarray:
    """Indices at which sentences of a document begin, the first token's among them: where white space follows a full
    stop, an exclamation or a question mark, with that space."""
    kinds = pieces(codec)
    stops, spaces = kinds.stops[tokens], kinds.opens[tokens]
    cut = np.flatnonzero(stops[:-1] & spaces[1:] | kinds.closes[tokens[:-1]] & stops[:-1]) + 1
    return np.concatenate([[0], cut]).astype(np.int64)
