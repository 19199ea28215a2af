"""Word vectors to ask: which words are near, and what is to one word as another is to a third."""

from __future__ import annotations

import difflib
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lm.data.errors import DataError
from lm.files import write_atomically

Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # cosines with a, b and c -> how well d fits


def cos_add(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """3CosAdd (Mikolov et al. 2013, "Linguistic regularities"): the d nearest to b - a + c."""
    return b - a + c


def cos_mul(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """3CosMul (Levy and Goldberg 2014, "Linguistic regularities in sparse and explicit word representations", equation
    4), with cosines moved to 0 .. 1: no one of the three can outweigh the others."""
    a, b, c = ((x + 1) / 2 for x in (a, b, c))
    return b * c / (a + 1e-3)


@dataclass(frozen=True)
class Embeddings:
    """words [V], and their vectors [V D]."""

    words: tuple[str, ...]
    vectors: np.ndarray

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.words):
            raise DataError(f"{len(self.words):,} words don't fit vectors of shape {self.vectors.shape}")

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def unit(self) -> np.ndarray:
        """The vectors at length 1, those of length 0 aside [V D]."""
        return self.vectors / np.maximum(np.linalg.norm(self.vectors, axis=1, keepdims=True), 1e-12)

    def __getitem__(self, word: str) -> np.ndarray:
        return self.vectors[self.id(word)]

    def id(self, word: str) -> int:
        """Raises DataError for a word that has no vector."""
        if word not in self.ids:
            close = difflib.get_close_matches(word, self.words, n=3)
            hint = f"; near in spelling: {', '.join(close)}" if close else ""
            raise DataError(f"no vector for the word '{word}' among {len(self.words):,}{hint}")
        return self.ids[word]

    def cosines(self, word: str) -> np.ndarray:
        """Of every word with this one [V]."""
        return self.unit @ self.unit[self.id(word)]

    def similarity(self, a: str, b: str) -> float:
        """The cosine of two words' vectors."""
        return float(self.cosines(a)[self.id(b)])

    def nearest(self, word: str, k: int = 10) -> list[tuple[str, float]]:
        """The k words with the largest cosine, this one left out, and it."""
        return self._best(self.cosines(word), (word,), k)

    def analogy(self, a: str, b: str, c: str, k: int = 1, score: Score = cos_add) -> list[tuple[str, float]]:
        """a is to b as c is to ..: the k best words, the three given ones left out, and their scores."""
        return self._best(score(self.cosines(a), self.cosines(b), self.cosines(c)), (a, b, c), k)

    def _best(self, scores: np.ndarray, without: Sequence[str], k: int) -> list[tuple[str, float]]:
        scores = scores.copy()
        scores[[self.id(word) for word in without]] = -np.inf
        order = np.argsort(-scores, kind="stable")[: min(k, len(self.words) - len(set(without)))]
        return [(self.words[i], float(scores[i])) for i in order]

    def save(self, path: str | Path) -> None:
        """As NumPy's .npz, or under any other name as the text that the word2vec tool reads and writes: a line with V
        and D, then a line a word. Both keep float32 as it is."""
        vectors = np.asarray(self.vectors, np.float32)
        if Path(path).suffix == ".npz":
            buffer = io.BytesIO()
            np.savez(buffer, words=np.array(self.words), vectors=vectors)
            write_atomically(path, buffer.getvalue())
            return
        if bad := [word for word in self.words if not word or word.split() != [word]]:
            raise DataError(f"the text form parts words by spaces, and there is one in {bad[0]!r}; save as .npz")
        lines = [f"{len(self.words)} {vectors.shape[1]}"]
        lines += [
            " ".join((w, *(f"{x:.9g}" for x in row))) for w, row in zip(self.words, vectors.tolist(), strict=True)
        ]
        write_atomically(path, "\n".join([*lines, ""]))


def load(path: str | Path) -> Embeddings:
    """What `Embeddings.save` wrote, or the word2vec tool in its text form. Raises DataError for anything else."""
    try:
        if Path(path).suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return Embeddings(tuple(map(str, file["words"])), file["vectors"])
        return _from_text(Path(path).read_text(encoding="utf-8"), path)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from None
    except (KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} holds no word vectors: {str(error).splitlines()[0]}") from None


def _from_text(text: str, path: str | Path) -> Embeddings:
    head, *lines = text.splitlines()
    count, width = map(int, head.split())
    words, rows = [], []
    for number, line in enumerate(lines, start=2):
        word, *values = line.split()
        if len(values) != width:
            raise DataError(f"{path}:{number} has {len(values)} numbers where the first line says {width}")
        words.append(word)
        rows.append(np.array(values, np.float32))
    if len(words) != count:
        raise DataError(f"{path} has {len(words):,} words where its first line says {count:,}; it is cut short")
    return Embeddings(tuple(words), np.array(rows, np.float32).reshape(count, width))
