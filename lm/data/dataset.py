"""Data as a value, and the dataset it names: batch n is a pure function of the contents, the seed and n."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterator

import numpy as np

from lm import paths
from lm.config import ConfigError, Count, config, content_hash
from lm.data import store
from lm.data.corpora import KJV, Corpus
from lm.data.errors import DataError
from lm.data.packing import Batch, Stream, concatenate
from lm.data.tokenizers import Bytes, Codec, Tokenizer


@config
class Data:
    """What a run reads. batch: rows of `length` tokens over all hosts. heldout: share of the documents kept from
    training, chosen by the documents' own hashes. seed: of the order of the documents."""

    corpus: Corpus = KJV()
    tokenizer: Tokenizer = Bytes()
    length: int = 256
    batch: int = 16
    heldout: float = 0.05
    seed: Count = 0

    def __post_init__(self) -> None:
        for name in ("length", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Data.{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.heldout < 1:
            raise ConfigError(f"Data.heldout={self.heldout:g} is a share of the documents: at least 0, less than 1")
        if not 0 <= self.seed < 1 << 63:
            raise ConfigError(f"Data.seed={self.seed} must be at least 0 and below 2**63")


def fingerprint(data: Data) -> str:
    """What the run's batches are made of: contents, tokenizer and split. Cheap: nothing is encoded.

    Length, batch and seed aren't in it; they are in the run's config.
    """
    parts = (data.corpus.fingerprint(), content_hash(data.tokenizer), repr(data.heldout), str(store.LAYOUT))
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def load(data: Data) -> Dataset:
    """The dataset, encoded into the cache folder the first time. Raises DataError for data that can't be used."""
    name = fingerprint(data)
    return Dataset(
        data, name, store.open_or_build(paths.cache_dir("data"), name, data.corpus, data.tokenizer, data.heldout)
    )


# Batches that are read in the caller's thread before Grain, which takes half a second to import, is: the device has
# its first steps by then, and computes meanwhile.
DIRECT = 16


class Dataset:
    """Batches by number. A batch is a dict of arrays [rows, length]:

    tokens, targets int32; positions int32 (from 0 at each document and each row); segments int32 (1, 2, .. in a
    row, 0 for padding); weights float32 (1 for a real target, else 0).
    """

    def __init__(self, data: Data, name: str, stored: store.Store) -> None:
        self.data = data
        self.fingerprint = name
        self.tokenizer: Codec = stored.codec
        self.vocab = stored.codec.vocab
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
        """This host's rows of batch n: rows are counted over epochs, hosts take equal slices one after another."""
        if n < 0:
            raise DataError(f"there is no batch {n}: batches are numbered from 0")
        low, count = self._share(host, hosts)
        row, parts = n * self.data.batch + low, []
        while count:
            epoch, first = divmod(row, self.epoch_rows)
            rows = min(count, self.epoch_rows - first)
            parts.append(self._train.read(self._train.shuffled(self.data.seed, epoch), first, rows))
            row, count = row + rows, count - rows
        return concatenate(parts)

    def batches(
        self, start: int = 0, host: int = 0, hosts: int = 1, prefetch: int = 2, workers: int = 1
    ) -> Iterator[Batch]:
        """Batches start, start + 1, ... without end, read ahead by Grain's threads.

        prefetch: batches kept ready; workers: threads. Neither changes what comes; 0 of either reads in this thread.
        """
        self._share(host, hosts)
        if start < 0:
            raise DataError(f"there is no batch {start}: batches are numbered from 0")
        direct = range(start, start + DIRECT)
        ahead = self._ahead(start + DIRECT, host, hosts, prefetch, min(workers, prefetch))
        return itertools.chain((self.batch(n, host, hosts) for n in direct), ahead)

    def _ahead(self, start: int, host: int, hosts: int, prefetch: int, threads: int) -> Iterator[Batch]:
        import grain

        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
        yield from grain.MapDataset.source(_Source(self, start, host, hosts)).to_iter_dataset(options)

    def heldout_batches(self, rows: int | None = None, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        """The held-out stream once, in the corpus's order, in batches of the full shape; the last is padded.

        rows: only so many rows, spread evenly over the stream.
        """
        low, count = self._share(host, hosts)
        total = self.heldout_rows
        chosen = np.arange(total) if rows is None or rows >= total else np.arange(rows) * total // rows
        for first in range(0, len(chosen), self.data.batch):
            mine = chosen[first : first + self.data.batch][low : low + count]
            padding = self._heldout.read(self._heldout.in_order, total, count - len(mine))
            yield concatenate([*(self._heldout.read(self._heldout.in_order, int(r), 1) for r in mine), padding])

    def bytes_of(self, batch: Batch) -> int:
        """Bytes of text that a batch's real targets stand for: what nats are divided by for bits per byte."""
        return int(self.tokenizer.token_bytes[batch["targets"]][batch["weights"] > 0].sum())

    def _share(self, host: int, hosts: int) -> tuple[int, int]:
        """First row and number of rows of a host."""
        if hosts < 1 or self.data.batch % hosts:
            raise DataError(f"batch={self.data.batch} can't be shared equally by {hosts} hosts; make it a multiple")
        if not 0 <= host < hosts:
            raise DataError(f"there is no host {host} of {hosts}: hosts are numbered 0 to {hosts - 1}")
        count = self.data.batch // hosts
        return host * count, count


class _Source:
    """Batches from `start` on, in the form Grain reads at random."""

    def __init__(self, dataset: Dataset, start: int, host: int, hosts: int) -> None:
        self.dataset, self.start, self.host, self.hosts = dataset, start, host, hosts

    def __len__(self) -> int:
        return sys.maxsize - self.start

    def __getitem__(self, index: int) -> Batch:
        return self.dataset.batch(self.start + int(index), self.host, self.hosts)

    def __repr__(self) -> str:
        return f"batches({self.dataset.fingerprint}, start={self.start}, host={self.host} of {self.hosts})"
