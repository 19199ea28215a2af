"""Several objectives in one run, chosen row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lm.config import ConfigError, config
from lm.data.tokenizers import Codec
from lm.objectives.documents import Document, Pair
from lm.objectives.pairs import Pairs, Room
from lm.objectives.prefix_lm import PrefixLM
from lm.objectives.span_corruption import SpanCorruption


@config
class Denoiser:
    """An objective of a mixture. weight: how often it is chosen, relative to the others. mode: the number of the token
    that every source of it begins with; None: with none."""

    objective: Pairs
    weight: float = 1.0
    mode: int | None = None

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ConfigError(f"weight={self.weight} must be above 0; leave out a part that isn't wanted")
        if self.mode is not None and self.mode < 0:
            raise ConfigError(f"mode={self.mode} is the number of a token, from 0, or None")


@config
class Mixture(Pairs):
    """Each row by one of several objectives, drawn by weight (Tay et al. 2023, "UL2").

    All rows have room for the largest part's. Mode tokens follow the objectives' own.
    """

    parts: tuple[Denoiser, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("parts=() is an empty mixture; give at least one Denoiser(objective=...)")

    @property
    def _own(self) -> int:
        return max(part.objective.extra for part in self.parts)

    @property
    def extra(self) -> int:
        return self._own + max((part.mode + 1 for part in self.parts if part.mode is not None), default=0)

    def room(self, length: int) -> Room:
        rooms = [part.objective.room(length) for part in self.parts]
        modes = any(part.mode is not None for part in self.parts)
        return Room(max(r.sources for r in rooms) + modes, max(r.targets for r in rooms))

    def pairs(self, parts: Sequence[Document], rng: np.random.Generator, codec: Codec) -> list[Pair | None]:
        weights = np.cumsum([part.weight for part in self.parts])
        chosen = self.parts[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]
        found = chosen.objective.pairs(parts, rng, codec)
        if chosen.mode is None:
            return found
        mode = [codec.vocab + self._own + chosen.mode]
        return [pair and pair._replace(source=np.concatenate([mode, pair.source])) for pair in found]


R, S, X = range(3)


def ul2(sentinels: int = 100, documents: int = 8) -> Mixture:
    """UL2's mixture of denoisers (Tay et al. 2023, table 1): two regular (R), four extreme (X), one sequential (S).

    Each is chosen equally often. The sequential one predicts the last quarter of a document on average.
    """

    def denoiser(span: float, rate: float, mode: int) -> Denoiser:
        corruption = SpanCorruption(rate=rate, span=span, sentinels=sentinels, documents=documents)
        return Denoiser(objective=corruption, mode=mode)

    regular = denoiser(3.0, 0.15, R), denoiser(8.0, 0.15, R)
    extreme = denoiser(3.0, 0.5, X), denoiser(8.0, 0.5, X), denoiser(64.0, 0.15, X), denoiser(64.0, 0.5, X)
    return Mixture(parts=(*regular, *extreme, Denoiser(objective=PrefixLM(most=0.5), mode=S)))
