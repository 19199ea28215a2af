"""Text as words: how it is split, and which words have an id."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lm.data.corpora import Corpus
from lm.data.errors import DataError
from lm.early.stream import Stream, stream

WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


def split(text: str) -> list[str]:
    """The words of a text in lower case: letters, with apostrophes between them."""
    return WORD.findall(text.lower())


def documents(corpus: Corpus) -> Iterator[list[str]]:
    """The words of each document of a corpus."""
    return (split(text) for text in corpus.documents())


@dataclass(frozen=True)
class Vocabulary:
    """words: the commonest first, those equally common by the alphabet; counts [V]: how often each occurs."""

    words: tuple[str, ...]
    counts: np.ndarray

    def encode(self, documents: Iterable[Sequence[str]]) -> Stream:
        """Ids of words. Words that have none are left out, as if they weren't there."""
        ids = {word: i for i, word in enumerate(self.words)}
        return stream([ids[word] for word in document if word in ids] for document in documents)


def vocabulary(documents: Iterable[Sequence[str]], smallest: int = 1) -> Vocabulary:
    """Of the words that occur at least `smallest` times. Raises DataError if there are fewer than two."""
    counts = Counter(word for document in documents for word in document)
    kept = sorted((word for word in counts if counts[word] >= smallest), key=lambda word: (-counts[word], word))
    if len(kept) < 2:
        raise DataError(
            f"{len(kept)} of {len(counts):,} words occur {smallest} times or more; give more text, or lower smallest"
        )
    return Vocabulary(tuple(kept), np.array([counts[word] for word in kept]))
