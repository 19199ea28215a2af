"""Word2Vec: vectors of words that tell which words stand near them, by negative sampling (Mikolov et al. 2013).

found = Word2Vec().fit(list(words.documents(KJV())))
found.analogy("man", "king", "woman")
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lm.config import ConfigError, config
from lm.data.errors import DataError
from lm.early.descent import Trained, descend
from lm.early.neighbours import Embeddings
from lm.early.stream import Stream
from lm.early.words import vocabulary
from lm.shapes import Array, Float, Int

NONE = -1  # where an example has no word
Params = dict[str, jax.Array]  # "words" and "outputs", each [V D]


class Architecture(abc.ABC):
    """What is predicted from what."""

    @abc.abstractmethod
    def examples(
        self, tokens: np.ndarray, document: np.ndarray, window: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(given [n g], target [n]). Each token reaches 1 to `window` tokens to either side, at random: so near ones
        count for more."""


@config
class SkipGram(Architecture):
    """Each word near a token, from the token (Mikolov et al. 2013, "Distributed representations", equation 4)."""

    def examples(
        self, tokens: np.ndarray, document: np.ndarray, window: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        reach = rng.integers(1, window + 1, len(tokens))
        pairs = []
        for away in range(1, window + 1):
            left = np.flatnonzero(document[away:] == document[:-away])
            right = left + away
            pairs += [(a[reach[a] >= away], b[reach[a] >= away]) for a, b in ((left, right), (right, left))]
        given, target = (np.concatenate(side) for side in zip(*pairs, strict=True))
        return tokens[given][:, None], tokens[target]


@config
class CBOW(Architecture):
    """A token, from the mean of the words near it (Mikolov et al. 2013, "Efficient estimation", 3.1)."""

    def examples(
        self, tokens: np.ndarray, document: np.ndarray, window: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        reach = rng.integers(1, window + 1, len(tokens))
        given = np.full((len(tokens), 2 * window), NONE)
        for away in range(1, window + 1):
            left = np.flatnonzero(document[away:] == document[:-away])
            right = left + away
            for column, (a, b) in zip((2 * away - 2, 2 * away - 1), ((left, right), (right, left)), strict=True):
                near = reach[a] >= away
                given[a[near], column] = tokens[b[near]]
        some = (given != NONE).any(axis=1)
        return given[some], tokens[some]


def loss(
    params: Params, given: Int[Array, "B g"], target: Int[Array, " B"], negatives: Int[Array, "B k"]
) -> Float[Array, " B"]:
    """-log sigmoid(h . u_target) - the sum over negatives of log sigmoid(-h . u_negative), where h is the mean of the
    given words' vectors."""
    there = (given != NONE)[..., None]
    h_BD = jnp.sum(jnp.where(there, params["words"][given], 0), axis=1) / jnp.sum(there, axis=1)
    right_B = jnp.einsum("BD,BD->B", h_BD, params["outputs"][target])
    wrong_Bk = jnp.einsum("BD,BkD->Bk", h_BD, params["outputs"][negatives])
    return jax.nn.softplus(-right_B) + jnp.sum(jax.nn.softplus(wrong_Bk), axis=1)


@config
class Word2Vec:
    """Negative sampling: each target against `negatives` words that are drawn as often as they occur to the `power`.

    subsample: a word of frequency f is left out with probability 1 - sqrt(subsample / f) each time (2013b, equation 5);
    None: never. smallest: words that occur less often have no vector. Trained with AdaGrad, whose steps for rare words
    stay long, in batches, at a rate that falls to 0 on a straight line. An epoch's examples are in memory at once:
    about 8 (window + 1) bytes a token for skip-gram.
    """

    architecture: Architecture = SkipGram()
    width: int = 100
    window: int = 5
    negatives: int = 5
    power: float = 0.75
    subsample: float | None = 1e-3
    smallest: int = 5
    epochs: int = 5
    learning_rate: float = 0.1
    batch: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "window", "negatives", "smallest", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Word2Vec.{name}={getattr(self, name)} must be at least 1")
        if self.learning_rate <= 0 or (self.subsample is not None and self.subsample <= 0):
            raise ConfigError(
                "Word2Vec: learning_rate and subsample must be positive, or subsample None for no sampling"
            )

    def fit(self, documents: Sequence[Sequence[str]]) -> Embeddings:
        """Vectors for the words of these documents."""
        known = vocabulary(documents, self.smallest)
        params = self.train(known.encode(documents), known.counts).params
        return Embeddings(known.words, np.asarray(params["words"]))

    def train(self, stream: Stream, counts: np.ndarray) -> Trained:
        """Tables "words" and "outputs" [V D] for tokens 0 .. V - 1 that occur `counts` times."""
        document, share = stream.document, counts / counts.sum()
        keep = np.ones(len(counts)) if self.subsample is None else np.sqrt(self.subsample / np.maximum(share, 1e-300))
        weights = share**self.power
        chances = jnp.asarray(np.cumsum(weights) / weights.sum(), jnp.float32)

        def examples(epoch: int) -> tuple[np.ndarray, ...]:
            rng = np.random.default_rng([self.seed, epoch, 1])
            kept = rng.random(len(stream.tokens)) < keep[stream.tokens]
            found = self.architecture.examples(stream.tokens[kept], document[kept], self.window, rng)
            if not len(found[1]):
                raise DataError("no two words stand near each other in a document; give longer ones, or subsample=None")
            return tuple(x.astype(np.int32) for x in found)

        def sampled(params: Params, key: jax.Array, given: jax.Array, target: jax.Array) -> jax.Array:
            drawn = jnp.searchsorted(chances, jax.random.uniform(key, (len(target), self.negatives)), side="right")
            return loss(params, given, target, jnp.minimum(drawn, len(counts) - 1))

        start = np.random.default_rng(self.seed).uniform(-0.5, 0.5, (len(counts), self.width)) / self.width
        params = {"words": jnp.asarray(start, jnp.float32), "outputs": jnp.zeros((len(counts), self.width))}
        return descend(
            sampled,
            optax.adagrad(1.0, initial_accumulator_value=1.0),
            params,
            examples,
            epochs=self.epochs,
            batch=self.batch,
            rate=lambda done: self.learning_rate * (1 - done),
            seed=self.seed,
        )
