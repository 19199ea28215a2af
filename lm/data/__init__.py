"""Corpora, tokenizers and batches."""

from lm.data.corpora import KJV, Corpus, Stdlib
from lm.data.dataset import Data, Dataset, fingerprint, load
from lm.data.errors import DataError
from lm.data.huggingface import HuggingFace
from lm.data.sources import Jsonl, Parquet, Text
from lm.data.tokenizers import BPE, Bytes, Codec, Tokenizer

__all__ = [
    "BPE",
    "KJV",
    "Bytes",
    "Codec",
    "Corpus",
    "Data",
    "DataError",
    "Dataset",
    "HuggingFace",
    "Jsonl",
    "Parquet",
    "Stdlib",
    "Text",
    "Tokenizer",
    "fingerprint",
    "load",
]
