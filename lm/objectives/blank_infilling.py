"""Filling the blanks of a document, one after another in any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lm.config import ConfigError, config
from lm.data.tokenizers import Codec
from lm.objectives.documents import Document, Pair
from lm.objectives.pairs import Pairs, Room, check_share
from lm.objectives.spans import placed, poisson_lengths, shared


@config
class BlankInfilling(Pairs):
    """Autoregressive blank infilling (Du et al. 2022, "GLM", 2.1).

    Of the text of a row a share `rate` becomes blanks, round(rate n) of n tokens. Their lengths are Poisson numbers of
    mean `span`, at least 1, the last one cut; they lie anywhere, at least one token apart. Part A, the source, is the
    document with a mark for each; part B, the target, has the blanks in a random order: each is begun by its mark,
    which is given, not predicted, then its tokens and `eot` are predicted.

    Other than in the paper each blank has a mark of its own, one of `marks` tokens, which part B repeats. There all
    blanks have one, and a token of part B is told its blank by a first position, that of the mark, and its place in it
    by a second. Positions here are single and go on from part A to part B, since masks go by them.

    documents: how many documents in a row there is room for. Nats are of a blank's tokens given all of part A and the
    blanks before it.
    """

    rate: float = 0.15
    span: float = 3.0
    marks: int = 100
    documents: int = 8

    def __post_init__(self) -> None:
        check_share(self, "rate")
        if self.span <= 0:
            raise ConfigError(f"span={self.span}, the mean of a Poisson distribution, must be above 0")
        for name in ("marks", "documents"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def extra(self) -> int:
        return self.marks

    def room(self, length: int) -> Room:
        """Blanks are at most as many as tokens lost; room is for twice their usual number, and some a document."""
        noise = int(shared([length], self.rate)[0])
        blanks = min(noise, int(2 * noise / self.span) + self.documents)
        return Room(length, max(noise + 2 * blanks, 3))

    def pairs(self, parts: Sequence[Document], rng: np.random.Generator, codec: Codec) -> list[Pair | None]:
        texts = [len(part.text(codec.eot)) for part in parts]
        noise = np.minimum(shared(texts, self.rate), np.asarray(texts) - 1).tolist()
        return [
            self._pair(part.tokens, text, lost, rng, codec) if lost > 0 else None
            for part, text, lost in zip(parts, texts, noise, strict=True)
        ]

    def _pair(self, tokens: np.ndarray, length: int, lost: int, rng: np.random.Generator, codec: Codec) -> Pair:
        most = min(self.marks, length - lost + 1)  # with a token between any two
        lengths = poisson_lengths(lost, self.span, most, rng)
        count = len(lengths)
        pieces = np.split(tokens, placed(lengths, length, rng))  # kept, blank, kept, ..., kept
        source, target, weights = [pieces[0]], [], []
        for i in range(count):
            source += [[codec.vocab + i], pieces[2 * i + 2]]
        for i in rng.permutation(count):
            blank = pieces[2 * i + 1]
            target += [[codec.vocab + i], blank, [codec.eot]]
            weights += [[0.0], np.ones(len(blank) + 1)]
        return Pair(np.concatenate(source), np.concatenate(target), np.concatenate(weights).astype(np.float32))
