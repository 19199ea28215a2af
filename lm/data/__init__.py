"""Corpora, tokenizers and batches."""

from lm.data.corpora import KJV, Corpus, Stdlib
from lm.data.dataset import Dataset, Source, fingerprint, load
from lm.data.errors import DataError
from lm.data.examples import TaskData
from lm.data.huggingface import HuggingFace
from lm.data.sources import Jsonl, Parquet, Text
from lm.data.text import Data, TextDataset
from lm.data.tokenizer_files import TokenizerFile, tokenizer_file
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
    "Source",
    "Stdlib",
    "TaskData",
    "Text",
    "TextDataset",
    "Tokenizer",
    "TokenizerFile",
    "fingerprint",
    "load",
    "tokenizer_file",
]
