"""Models that are counted or fitted in one go, before language models were trained step by step."""

from lm.early.glove import GloVe
from lm.early.neighbours import Embeddings, cos_add, cos_mul, load
from lm.early.ngram import NGram, NGramModel
from lm.early.stream import Stream, of_batches, stream
from lm.early.word2vec import CBOW, SkipGram, Word2Vec
from lm.early.words import Vocabulary, vocabulary

__all__ = [
    "CBOW", "Embeddings", "GloVe", "NGram", "NGramModel", "SkipGram", "Stream", "Vocabulary", "Word2Vec", "cos_add",
    "cos_mul", "load", "of_batches", "stream", "vocabulary",
]  # fmt: skip
