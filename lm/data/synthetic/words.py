"""Words of English whose letters are out of order."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import ClassVar

import numpy as np

from lm.config import ConfigError, config, content_hash
from lm.data.corpora import KJV
from lm.data.synthetic.sequences import arranged, written
from lm.data.synthetic.task import MARK, Examples, Task

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@config
class WordUnscramble(Task):
    """MARK letters = word MARK: the letters of a word in random order, never that of the word. The last MARK is an
    answer: words differ in length.

    Words are the `commonest` in the King James Bible of those with `shortest` to `longest` letters, each as likely as
    any other. Of words with the same letters only the commonest is one of them, so that there is one answer.

    TaskData splits by question, which is the letters in their order here: a word that is held out in one order may
    have been trained on in others.
    """

    licence: ClassVar[str] = KJV.licence

    shortest: int = 4
    longest: int = 7
    commonest: int = 500

    def __post_init__(self) -> None:
        if not 2 <= self.shortest <= self.longest:
            lengths = f"shortest={self.shortest}, longest={self.longest}"
            raise ConfigError(f"WordUnscramble: {lengths} must be lengths from 2 on, the longest at least the shortest")
        if self.commonest < 1:
            raise ConfigError(f"WordUnscramble.commonest={self.commonest} must be at least 1")

    @property
    def words(self) -> tuple[str, ...]:
        """The words, the commonest first. Raises ConfigError where there aren't so many."""
        found = _words(self.shortest, self.longest)
        if len(found) < self.commonest:
            raise ConfigError(
                f"WordUnscramble.commonest={self.commonest} is too many: the King James Bible has {len(found):,} words "
                f"of {self.shortest} to {self.longest} letters that differ in more than their order"
            )
        return found[: self.commonest]

    def fingerprint(self) -> str:
        return content_hash(self, *self.words)

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*LETTERS, "=")

    @property
    def length(self) -> int:
        return 2 * self.longest + 2

    @property
    def draws(self) -> int:
        return 1 + self.longest

    def make(self, u: np.ndarray) -> Examples:
        words = _tokens(self.words, self.longest)[(u[:, 0] * self.commonest).astype(np.int64)]
        sizes = (words != MARK).sum(1)
        letters = arranged(words, u[:, 1:], sizes)
        # what comes out as the word itself is turned by one letter: that changes it, having two different letters
        turned = np.take_along_axis(words, (np.arange(self.longest) + 1) % sizes[:, None], axis=1)
        letters = np.where((letters == words).all(1, keepdims=True), turned, letters)
        return written(letters, words, sizes, separator=len(self.symbols))


@functools.lru_cache(maxsize=4)
def _tokens(words: tuple[str, ...], longest: int) -> np.ndarray:
    """The tokens of words [words, longest], filled up with MARK."""
    return np.array([[*(1 + LETTERS.index(letter) for letter in w), *[MARK] * (longest - len(w))] for w in words])


@functools.lru_cache(maxsize=4)
def _words(shortest: int, longest: int) -> tuple[str, ...]:
    """The words of these lengths that their letters tell, the commonest first and by the alphabet where equally so."""
    counts = _counts()
    ranked = sorted((w for w in counts if shortest <= len(w) <= longest), key=lambda w: (-counts[w], w))
    best: dict[str, str] = {}
    for word in ranked:
        if len(set(word)) > 1:  # or there is no other order
            best.setdefault("".join(sorted(word)), word)
    return tuple(best.values())


@functools.lru_cache(maxsize=1)
def _counts() -> Counter[str]:
    """How often each word occurs in the King James Bible, names of its chapters apart."""
    counts: Counter[str] = Counter()
    for chapter in KJV().documents():
        counts.update(re.findall("[a-z]+", chapter.partition("\n\n")[2].lower()))
    return counts
