"""Text as data: a corpus, a tokenizer, and rows of packed documents."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator

import numpy as np

from lm import paths
from lm.config import Count, config, content_hash
from lm.data import store
from lm.data.corpora import KJV, Corpus
from lm.data.dataset import Dataset, Source, check_number
from lm.data.errors import DataError
from lm.data.packing import Batch, Stream, concatenate
from lm.data.tokenizers import Bytes, Codec, Tokenizer


@config
class Data(Source):
    """What a run reads. batch: rows of `length` tokens over all hosts. heldout: share of the documents kept from
    training, chosen by the documents' own hashes. seed: of the order of the documents."""

    corpus: Corpus = KJV()
    tokenizer: Tokenizer = Bytes()
    length: int = 256
    batch: int = 16
    heldout: float = 0.05
    seed: Count = 0

    def __post_init__(self) -> None:
        self.check()

    @property
    def contents(self) -> Hashable:
        return self.corpus, self.tokenizer, self.heldout

    def fingerprint(self) -> str:
        """Cheap: nothing is encoded."""
        parts = (self.corpus.fingerprint(), content_hash(self.tokenizer), repr(self.heldout), str(store.LAYOUT))
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def load(self) -> TextDataset:
        """The dataset, encoded into the cache folder the first time."""
        name = self.fingerprint()
        place = paths.cache_dir("data")
        return TextDataset(self, name, store.open_or_build(place, name, self.corpus, self.tokenizer, self.heldout))

    def codec(self, text: str) -> Codec:
        return self.tokenizer.loads(text)


class TextDataset(Dataset):
    """Rows of a corpus's documents, one after another; epochs follow each other in fresh orders."""

    def __init__(self, data: Data, name: str, stored: store.Store) -> None:
        self.data = data
        self.fingerprint = name
        self.tokenizer = stored.codec
        self.train_documents, self.train_tokens = stored.train.documents, len(stored.train.tokens)
        self.heldout_documents, self.heldout_tokens = stored.heldout.documents, len(stored.heldout.tokens)
        self._train = Stream(stored.train, data.length, stored.codec.eot)
        self._heldout = Stream(stored.heldout, data.length, stored.codec.eot)
        self.epoch_rows = self._train.rows
        self.heldout_rows = self._heldout.rows
        if data.batch > self.epoch_rows:
            raise DataError(
                f"batch={data.batch} rows of length={data.length} are more than an epoch: the training split of "
                f"{data.corpus} has {self.train_tokens:,} tokens, {self.epoch_rows:,} rows; lower batch or length, "
                "or give more text"
            )

    def batch(self, n: int, host: int = 0, hosts: int = 1) -> Batch:
        """Rows are counted over epochs."""
        check_number(n)
        low, count = self.share(host, hosts)
        row, parts = n * self.data.batch + low, []
        while count:
            epoch, first = divmod(row, self.epoch_rows)
            rows = min(count, self.epoch_rows - first)
            parts.append(self._train.read(self._train.shuffled(self.data.seed, epoch), first, rows))
            row, count = row + rows, count - rows
        return concatenate(parts)

    def heldout_batches(self, rows: int | None = None, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        """The held-out stream in the corpus's order; `rows` of it are spread evenly over the stream."""
        low, count = self.share(host, hosts)
        total = self.heldout_rows
        chosen = np.arange(total) if rows is None or rows >= total else np.arange(rows) * total // rows
        for first in range(0, len(chosen), self.data.batch):
            mine = chosen[first : first + self.data.batch][low : low + count]
            padding = self._heldout.read(self._heldout.in_order, total, count - len(mine))
            yield concatenate([*(self._heldout.read(self._heldout.in_order, int(r), 1) for r in mine), padding])
