"""GloVe: vectors whose products are the logarithms of how often words occur together (Pennington et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse

from lm.config import ConfigError, config
from lm.data.errors import DataError
from lm.early.descent import Trained, descend
from lm.early.neighbours import Embeddings
from lm.early.stream import Stream
from lm.early.words import vocabulary
from lm.shapes import Array, Float, Int

Params = dict[str, jax.Array]  # "words", "contexts" [V D] and their biases [V]


def cooccurrences(stream: Stream, vocab: int, window: int) -> scipy.sparse.csr_array:
    """X [V V]: how often two words stand in a document at most `window` apart, each time 1 / distance (section 4.2)."""
    total = scipy.sparse.csr_array((vocab, vocab))
    tokens, document = stream.tokens, stream.document
    for away in range(1, window + 1):
        same = document[away:] == document[:-away]
        left, right = tokens[:-away][same], tokens[away:][same]
        pairs = scipy.sparse.coo_array((np.full(len(left), 1 / away), (left, right)), (vocab, vocab)).tocsr()
        total = total + pairs + pairs.T
    return scipy.sparse.csr_array(total)


def misfit(params: Params, word: Int[Array, " B"], context: Int[Array, " B"], log_x: Float[Array, " B"]) -> Array:
    """w . c + b + b' - log X of each pair [B]."""
    product = jnp.einsum("BD,BD->B", params["words"][word], params["contexts"][context])
    return product + params["word_bias"][word] + params["context_bias"][context] - log_x


@config
class GloVe:
    """sum over pairs with X > 0 of f(X) (w . c + b + b' - log X)^2, f(X) = min(1, X / maximum)^alpha (equations 8, 9).

    smallest: words that occur less often have no vector. Trained with AdaGrad as in the paper, in batches; a word's
    vector is w + c (4.2).
    """

    width: int = 100
    window: int = 10
    maximum: float = 100.0
    alpha: float = 0.75
    smallest: int = 5
    epochs: int = 25
    learning_rate: float = 0.05
    batch: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "window", "smallest", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"GloVe.{name}={getattr(self, name)} must be at least 1")
        for name in ("maximum", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"GloVe.{name}={getattr(self, name)} must be positive")

    def fit(self, documents: Sequence[Sequence[str]]) -> Embeddings:
        """Vectors for the words of these documents."""
        known = vocabulary(documents, self.smallest)
        params = self.train(cooccurrences(known.encode(documents), len(known.words), self.window)).params
        return Embeddings(known.words, np.asarray(params["words"] + params["contexts"]))

    def train(self, x: scipy.sparse.csr_array) -> Trained:
        """Tables for co-occurrences X [V V]."""
        pairs = x.tocoo()
        word, context = (index.astype(np.int32) for index in pairs.coords)
        if not pairs.nnz:
            raise DataError("no two words stand near each other in a document; give longer ones, or a larger window")
        often = np.asarray(pairs.data, np.float32)
        arrays = word, context, np.log(often), np.minimum(1, often / self.maximum) ** self.alpha

        def squared(params: Params, key: jax.Array, word: Array, context: Array, log_x: Array, weight: Array) -> Array:
            del key
            return weight * jnp.square(misfit(params, word, context, log_x))

        rng, vocab = np.random.default_rng(self.seed), len(x.indptr) - 1
        shapes = {"words": (vocab, self.width), "contexts": (vocab, self.width)}
        shapes |= {"word_bias": (vocab,), "context_bias": (vocab,)}
        start = {name: rng.uniform(-0.5, 0.5, shape) / self.width for name, shape in shapes.items()}
        return descend(
            squared,
            optax.adagrad(1.0, initial_accumulator_value=1.0),
            {name: jnp.asarray(table, jnp.float32) for name, table in start.items()},
            lambda _: arrays,
            epochs=self.epochs,
            batch=self.batch,
            rate=lambda _: self.learning_rate,
            seed=self.seed,
        )
