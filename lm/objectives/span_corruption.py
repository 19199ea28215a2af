"""Writing the spans that were taken out of a document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lm.config import ConfigError, config
from lm.data.packing import Batch as HostBatch
from lm.data.tokenizers import Codec
from lm.models.model import Model
from lm.objectives.documents import Document, Pair
from lm.objectives.pairs import Pairs, Room, check_share, laid_out
from lm.objectives.spans import composition, placed, shared


@config
class SpanCorruption(Pairs):
    """T5's span corruption (Raffel et al. 2020, 3.1.4 and 3.3.4).

    Of the text of a row a share `rate` is taken out, round(rate n) of n tokens and of each document its part, in spans
    of `span` tokens on average: their number is rounded, and noise and rest are cut into so many spans at random, all
    ways alike, with at least one token between two. (The paper's program has each document end with a span, which for
    one that loses a single span would always be its end.) In the source a sentinel stands for each span; the target is
    each sentinel with its span, then `eot`. Sentinels ascend: data.vocab, data.vocab + 1, ... in each document,
    `sentinels` of them. The end of the document itself stays.

    documents: how many documents in a row there is room for, at two more target tokens each; of more, and of documents
    too short to lose a token, some are left out.
    Its nats are those of the target: of spans given the rest, and of where spans are.
    """

    rate: float = 0.15
    span: float = 3.0
    sentinels: int = 100
    documents: int = 8

    def __post_init__(self) -> None:
        check_share(self, "rate")
        if self.span < 1:
            raise ConfigError(f"span={self.span} tokens on average must be at least 1")
        for name in ("sentinels", "documents"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def extra(self) -> int:
        return self.sentinels

    def room(self, length: int) -> Room:
        noise = int(shared([length], self.rate)[0])
        spans = max(1, int(shared([noise], 1 / self.span)[0]))
        targets = min(noise + spans + 1 + 2 * (self.documents - 1), 3 * noise)
        return Room(min(length - noise + spans + self.documents, length), max(targets, 3))

    def pairs(self, parts: Sequence[Document], rng: np.random.Generator, codec: Codec) -> list[Pair | None]:
        texts = [part.text(codec.eot) for part in parts]
        noise = np.minimum(shared([len(text) for text in texts], self.rate), [len(text) - 1 for text in texts])
        spans = np.maximum(shared(noise, 1 / self.span), 1)
        numbers = zip(noise.tolist(), spans.tolist(), strict=True)
        return [
            self._pair(part.tokens, len(text), lost, count, rng, codec) if lost > 0 else None
            for part, text, (lost, count) in zip(parts, texts, numbers, strict=True)
        ]

    def blanked(self, batch: HostBatch, place: int, codec: Codec, model: Model) -> HostBatch:
        """As a span of one token, given the rest and the span's sentinel, but not that it is one token."""
        rows, sentinel = [], [codec.vocab]
        for tokens in batch["targets"]:
            source = np.concatenate([tokens[:place], sentinel, tokens[place + 1 :]])
            target = np.concatenate([sentinel, tokens[place : place + 1], [codec.eot]])
            rows.append([(1, Pair(source, target, np.array([0, 1, 0], np.float32)))])
        return laid_out(rows, Room(batch["targets"].shape[1], 3), codec, model)

    def _pair(
        self, tokens: np.ndarray, length: int, lost: int, count: int, rng: np.random.Generator, codec: Codec
    ) -> Pair:
        """Of a document whose text has `length` tokens, with `lost` of them in `count` spans."""
        count = min(count, lost, length - lost + 1, self.sentinels)
        lengths = composition(lost, count, rng)
        pieces = np.split(tokens, placed(lengths, length, rng))  # kept, taken, kept, ..., kept
        source, target = [pieces[0]], []
        for i in range(count):
            sentinel = [codec.vocab + i]
            source += [sentinel, pieces[2 * i + 2]]
            target += [sentinel, pieces[2 * i + 1]]
        written = np.concatenate([*target, [codec.eot]])
        return Pair(np.concatenate(source), written, np.ones(len(written), np.float32))
