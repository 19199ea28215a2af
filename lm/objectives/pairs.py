"""Objectives that turn each document into something to read and something to write."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lm.config import ConfigError
from lm.data.packing import Batch as HostBatch
from lm.data.tokenizers import Codec
from lm.models.encoder_decoder import EncoderDecoder
from lm.models.execution import Execution
from lm.models.model import Hidden, Model
from lm.nn.aux import joined
from lm.nn.cost import Cost
from lm.nn.cross import Context
from lm.objectives import fits
from lm.objectives.documents import Document, Pair, Row, documents, fitting, for_decoder, for_encoder_decoder
from lm.objectives.draws import Draws
from lm.objectives.loss import token_sums
from lm.objectives.objective import Batch, Objective, Sums


class Room(NamedTuple):
    """Tokens that a row has for sources and for targets."""

    sources: int
    targets: int

    @property
    def both(self) -> int:
        return self.sources + self.targets


class Pairs(Objective):
    """An objective of pairs, source and target.

    An EncoderDecoder reads the source with its encoder; its batches have encoder_tokens, encoder_positions and
    encoder_segments [B S] besides the decoder's arrays. A Decoder with Mask(prefix=True) has it as a prefix, of
    negative segments, before what that decoder would be given. In both the first target token is predicted from `eot`.
    Documents whose pair doesn't fit the rows any more are left out, at random.
    """

    @abc.abstractmethod
    def pairs(self, parts: Sequence[Document], rng: np.random.Generator, codec: Codec) -> list[Pair | None]:
        """What becomes of the parts of documents that a row has; None: nothing can be learned of one."""

    @abc.abstractmethod
    def room(self, length: int) -> Room:
        """Of rows for what becomes of `length` tokens."""

    def check(self, model: Model, length: int) -> None:
        room = self.room(length)
        if isinstance(model, EncoderDecoder):
            fits.causal(model.decoder.each(), self)
            model.encoder.check_context(room.sources)
            model.decoder.check_context(room.targets)
        else:
            fits.prefix(fits.layers(model, self), self)
            model.check_context(room.both)

    def cost(self, model: Model, length: int) -> Cost:
        room = self.room(length)
        return model.cost(*room) if isinstance(model, EncoderDecoder) else model.cost(room.both)

    def prepare(self, batch: HostBatch, draws: Draws, codec: Codec, model: Model) -> HostBatch:
        room, rows = self.room(batch["tokens"].shape[1]), []
        for row, rng in enumerate(draws.rngs):
            parts = documents(batch, row)
            made = self.pairs(parts, rng, codec)
            whole = [(part.segment, pair) for part, pair in zip(parts, made, strict=True) if pair is not None]
            rows.append(fitting(whole, *room, rng))
        return laid_out(rows, room, codec, model)

    def __call__(self, model: Any, batch: Batch, execution: Execution) -> Sums:
        return token_sums(model, hidden(model, batch, execution), batch["targets"], batch["weights"])


def laid_out(rows: Sequence[Row], room: Room, codec: Codec, model: Model) -> HostBatch:
    """Rows of pairs as the model reads them."""
    if isinstance(model, EncoderDecoder):
        return for_encoder_decoder(rows, *room, start=codec.eot)
    return for_decoder(rows, room.both, start=codec.eot)


def hidden(model: Any, batch: Batch, execution: Execution) -> Hidden:
    """What the output layer reads, in either form."""
    own = batch["tokens"], batch["positions"], batch["segments"], None, execution
    if "encoder_tokens" not in batch:
        return model.hidden(*own)
    tokens, positions, segments = (batch[f"encoder_{name}"] for name in ("tokens", "positions", "segments"))
    read = model.encoder.hidden(tokens, positions, segments, None, execution)
    found = model.hidden(*own, context=Context(read.h, positions, segments))
    return found._replace(aux=joined([read.aux, found.aux]))


def check_share(objective: Any, name: str, low: float = 0.0) -> None:
    """Raises ConfigError unless a field is a share."""
    if not low < getattr(objective, name) < 1:
        raise ConfigError(f"{name}={getattr(objective, name)} is a share of the tokens: above {low:g}, below 1")
