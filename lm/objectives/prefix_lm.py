"""Going on from a prefix that is read from both sides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lm.config import ConfigError, config
from lm.data.packing import Batch as HostBatch
from lm.data.tokenizers import Codec
from lm.models.encoder_decoder import EncoderDecoder
from lm.models.model import Model
from lm.nn.cost import Cost
from lm.objectives import fits
from lm.objectives.documents import Document, Pair, documents
from lm.objectives.draws import Draws
from lm.objectives.pairs import Pairs, Room


@config
class PrefixLM(Pairs):
    """Prefix language modelling (Raffel et al. 2020, 3.2.1; Liu et al. 2018).

    Each document is cut at random; what comes before is read, what comes after is predicted: a share of the document
    that is uniform from `least` to `most`, in whole tokens, at least one, and one that counts. A Decoder with
    Mask(prefix=True) reads rows as they are, with the prefix marked; an EncoderDecoder reads it with its encoder. What
    is predicted is the same in both. Nats are exact ones of a token given all before it.
    """

    least: float = 0.0
    most: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most <= 1 or self.most == 0:
            raise ConfigError(f"least={self.least} and most={self.most} are shares of a document, in this order")

    def room(self, length: int) -> Room:
        return Room(math.ceil((1 - self.least) * length), math.ceil(self.most * length))

    def check(self, model: Model, length: int) -> None:
        if isinstance(model, EncoderDecoder):
            super().check(model, length)
        else:
            fits.prefix(fits.layers(model, self), self)
            model.check_context(length)

    def cost(self, model: Model, length: int) -> Cost:
        return super().cost(model, length) if isinstance(model, EncoderDecoder) else model.cost(length)

    def prepare(self, batch: HostBatch, draws: Draws, codec: Codec, model: Model) -> HostBatch:
        if isinstance(model, EncoderDecoder):
            return super().prepare(batch, draws, codec, model)
        segments, weights = batch["segments"].copy(), batch["weights"].copy()
        for row, rng in enumerate(draws.rngs):
            for part in documents(batch, row):
                cut = self._cut(part, rng)
                if cut is None:
                    weights[row, part.place] = 0
                else:
                    low = part.place.start
                    weights[row, low : low + cut] = 0
                    segments[row, low : low + cut + 1] *= -1  # that many, and what the first was predicted from
        return {**batch, "segments": segments, "weights": weights}

    def pairs(self, parts: Sequence[Document], rng: np.random.Generator, codec: Codec) -> list[Pair | None]:
        cuts = [self._cut(part, rng) for part in parts]
        return [
            None if cut is None else Pair(part.tokens[:cut], part.tokens[cut:], part.weights[cut:])
            for part, cut in zip(parts, cuts, strict=True)
        ]

    def _cut(self, part: Document, rng: np.random.Generator) -> int | None:
        """How many tokens are read. None: there is none to predict after one that is read."""
        n, last = len(part.tokens), np.flatnonzero(part.weights)
        if n < 2 or not len(last) or last[-1] == 0:
            return None
        high = max(1, min(math.floor((1 - self.least) * n), int(last[-1])))
        low = max(1, min(math.ceil((1 - self.most) * n), high))
        return int(rng.integers(low, high + 1))
