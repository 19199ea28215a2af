"""Writing a document whole that was read with noise."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from lm.config import ConfigError, config
from lm.data.tokenizers import Codec
from lm.objectives.documents import Document, Pair
from lm.objectives.pairs import Pairs, Room, check_share
from lm.objectives.words import sentence_starts


class Noise(abc.ABC):
    """`noise(tokens [n], rng, codec) -> tokens`: what is read in the place of a document's text. The mask is the token
    codec.vocab."""

    @abc.abstractmethod
    def __call__(self, tokens: np.ndarray, rng: np.random.Generator, codec: Codec) -> np.ndarray: ...


@config
class TokenMasking(Noise):
    """A share of the tokens becomes masks: round(rate n) of n."""

    rate: float = 0.15

    def __post_init__(self) -> None:
        check_share(self, "rate")

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator, codec: Codec) -> np.ndarray:
        found = tokens.copy()
        found[_some(len(tokens), self.rate, rng)] = codec.vocab
        return found


@config
class TokenDeletion(Noise):
    """A share of the tokens is taken out: round(rate n) of n. Where, isn't said."""

    rate: float = 0.15

    def __post_init__(self) -> None:
        check_share(self, "rate")

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator, codec: Codec) -> np.ndarray:
        return np.delete(tokens, _some(len(tokens), self.rate, rng))


@config
class TextInfilling(Noise):
    """Spans become one mask each, of Poisson lengths; one of length 0 puts a mask between two tokens.

    Spans are drawn until they have round(rate n) of n tokens, the last one cut; they don't overlap, but may touch.
    """

    rate: float = 0.3
    span: float = 3.0

    def __post_init__(self) -> None:
        check_share(self, "rate")
        if self.span <= 0:
            raise ConfigError(f"span={self.span}, the mean of a Poisson distribution, must be above 0")

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator, codec: Codec) -> np.ndarray:
        left = round(self.rate * len(tokens))
        spans = []
        while left > 0:
            spans.append(min(int(rng.poisson(self.span)), left))
            left -= spans[-1]
        # spans and the tokens that stay, in a random order of the two kinds
        kept = len(tokens) - sum(spans)
        is_span = np.zeros(kept + len(spans), bool)
        is_span[rng.permutation(len(is_span))[: len(spans)]] = True
        sizes = np.ones(len(is_span), np.int64)
        sizes[is_span] = spans
        starts = np.cumsum(sizes) - sizes
        found = np.full(len(is_span), codec.vocab, tokens.dtype)
        found[~is_span] = tokens[starts[~is_span]]
        return found


@config
class SentencePermutation(Noise):
    """Sentences in a random order. A sentence ends with a full stop, an exclamation or a question mark."""

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator, codec: Codec) -> np.ndarray:
        sentences = np.split(tokens, sentence_starts(tokens, codec)[1:]) if len(tokens) else [tokens]
        return np.concatenate([sentences[i] for i in rng.permutation(len(sentences))])


@config
class DocumentRotation(Noise):
    """The document begins at a random token, and what was before that comes after its end."""

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator, codec: Codec) -> np.ndarray:
        return np.roll(tokens, -int(rng.integers(max(len(tokens), 1))))


@config
class Denoising(Pairs):
    """BART's denoising (Lewis et al. 2020, 2.2): the document is written whole, and read with noise.

    noises: what is done to its text, one after another; the default is what BART was trained with: sentences in a
    random order, then infilling. The end of the document stays. What goes on in another row ends without one.
    Nats are of a token of the document given the noisy one and all before it: no likelihood, and easy ones where
    little is lost.
    """

    noises: tuple[Noise, ...] = (SentencePermutation(), TextInfilling())

    def __post_init__(self) -> None:
        if not self.noises:
            raise ConfigError("noises=() leaves documents to be copied; give at least one")

    @property
    def extra(self) -> int:
        return 1

    def room(self, length: int) -> Room:
        return Room(length, length)

    def pairs(self, parts: Sequence[Document], rng: np.random.Generator, codec: Codec) -> list[Pair | None]:
        found: list[Pair | None] = []
        for part in parts:
            text = part.text(codec.eot)
            read = text
            for noise in self.noises:
                read = noise(read, rng, codec)
            source = np.concatenate([read, part.tokens[len(text) :]])
            found.append(Pair(source, part.tokens, np.ones(len(part.tokens), np.float32)) if len(source) else None)
        return found


def _some(count: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """round(rate count) different numbers below `count`."""
    return rng.permutation(count)[: round(rate * count)]
