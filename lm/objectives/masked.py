"""Predicting tokens that are hidden, from both their sides."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from lm.config import ConfigError, config
from lm.data.packing import Batch as HostBatch
from lm.data.tokenizers import Codec
from lm.models.execution import Execution
from lm.models.model import Model
from lm.objectives import fits
from lm.objectives.draws import Draws
from lm.objectives.loss import token_sums
from lm.objectives.objective import Batch, Objective, Sums, only
from lm.objectives.words import word_starts

Unit = Literal["token", "word"]


@config
class Masked(Objective):
    """Masked language modelling (Devlin et al. 2018, 3.1), with fresh masks in each epoch (Liu et al. 2019, 4.1).

    Of the tokens of each row, ends of documents aside, a share `rate` is chosen and predicted: exactly round(rate n) of
    n, at least one. Of the chosen a share `masked` becomes the mask token, a share `random` any token of the data, each
    drawn by itself; the others stay. unit="word" chooses whole words in a random order, as long as they fit
    (a word begins at white space).

    Its nats are those of a token given most of its document, on both sides: the pseudo-likelihood. They are no
    likelihood of the text and lie below those of NextToken; compare them with each other alone.
    """

    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    unit: Unit = "token"

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"rate={self.rate} is a share of the tokens: above 0, at most 1")
        if self.masked < 0 or self.random < 0 or self.masked + self.random > 1:
            raise ConfigError(f"masked={self.masked} and random={self.random} are shares of what is chosen, at most 1")

    @property
    def extra(self) -> int:
        return 1

    def check(self, model: Model, length: int) -> None:
        fits.bidirectional(fits.layers(model, self), self)
        model.check_context(length)

    def prepare(self, batch: HostBatch, draws: Draws, codec: Codec, model: Model) -> HostBatch:
        tokens, weights = batch["targets"].copy(), np.zeros_like(batch["weights"])
        every = chosen(batch, draws, codec, self.rate, self.unit)
        for row, (places, rng) in enumerate(zip(every, draws.rngs, strict=True)):
            weights[row, places] = 1
            fate = rng.random(len(places))
            tokens[row, places[fate < self.masked]] = codec.vocab
            other = places[(fate >= self.masked) & (fate < self.masked + self.random)]
            tokens[row, other] = rng.integers(codec.vocab, size=len(other))
        return {**batch, "tokens": tokens, "weights": weights}

    def blanked(self, batch: HostBatch, place: int, codec: Codec, model: Model) -> HostBatch:
        """From both sides, whatever share is masked in training."""
        return one_masked(batch, place, codec)

    def __call__(self, model: Any, batch: Batch, execution: Execution) -> Sums:
        hidden = model.hidden(batch["tokens"], batch["positions"], batch["segments"], None, execution)
        return token_sums(model, hidden, batch["targets"], batch["weights"])


def one_masked(batch: HostBatch, place: int, codec: Codec) -> HostBatch:
    """Rows in which one token is the mask, and nothing else counts."""
    tokens = batch["targets"].copy()
    tokens[:, place] = codec.vocab
    return {**batch, "tokens": tokens, "weights": only(batch, place)}


def chosen(batch: HostBatch, draws: Draws, codec: Codec, rate: float, unit: Unit) -> list[np.ndarray]:
    """Places of each row that are to be predicted: round(rate n) of the n that count and aren't the end of a document,
    or nearly as many where words aren't cut."""
    counts = (batch["weights"] > 0) & (batch["targets"] != codec.eot)
    words = np.cumsum(word_starts(batch, codec), axis=1) if unit == "word" else None
    found = []
    for row, rng in enumerate(draws.rngs):
        places = np.flatnonzero(counts[row])
        budget = max(1, round(rate * len(places))) if len(places) else 0
        if words is None:
            found.append(np.sort(rng.permutation(places)[:budget]))
        else:
            found.append(_words(places, words[row, places], budget, rng))
    return found


def _words(places: np.ndarray, words: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    """The places of words in a random order, until one doesn't fit the budget any more; the first is always taken."""
    if not len(places):
        return places
    _, word, sizes = np.unique(words, return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    fit = np.cumsum(sizes[order]) <= budget
    fit[0] = True
    return places[np.isin(word, order[fit])]
