"""What training reads, whatever it is made of: batch n is a pure function of the contents, the seed and n."""

from __future__ import annotations

import abc
import itertools
import sys
from collections.abc import Hashable, Iterator

from lm.config import ConfigError
from lm.data.errors import DataError
from lm.data.packing import Batch
from lm.data.tokenizers import Codec


class Source(abc.ABC):
    """A dataset as a value. batch: rows of `length` tokens over all hosts; heldout: the share kept from training;
    seed: of the order."""

    batch: int
    seed: int
    heldout: float

    length: int

    @property
    @abc.abstractmethod
    def contents(self) -> Hashable:
        """All that the fingerprint is made of: sources that differ in nothing of it share one."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A hash of what the batches are made of and how it is split. Length, batch and seed aren't in it; they are in
        the run's config."""

    @abc.abstractmethod
    def load(self) -> Dataset:
        """The dataset. Raises DataError for data that can't be used."""

    @abc.abstractmethod
    def codec(self, text: str) -> Codec:
        """The codec that `Codec.dumps` wrote, without the data."""

    def check_measurable(self) -> None:
        """Raises ConfigError where there is nothing to measure a run by."""
        if self.heldout == 0:
            raise ConfigError("data.heldout=0 leaves nothing to measure the run by; hold out a small share, e.g. 0.05")

    def check(self) -> None:
        """Raises ConfigError for numbers that no source may have."""
        name = type(self).__name__
        for field in ("length", "batch"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{name}.{field}={getattr(self, field)} must be at least 1")
        if not 0 <= self.heldout < 1:
            raise ConfigError(f"{name}.heldout={self.heldout:g} is a share of it all: at least 0, less than 1")
        if not 0 <= self.seed < 1 << 63:
            raise ConfigError(f"{name}.seed={self.seed} must be at least 0 and below 2**63")


def fingerprint(data: Source) -> str:
    return data.fingerprint()


def load(data: Source) -> Dataset:
    return data.load()


# Batches that are read in the caller's thread before Grain, which takes half a second to import, is: the device has
# its first steps by then, and computes meanwhile.
DIRECT = 16


class Dataset(abc.ABC):
    """Batches by number. A batch is a dict of arrays [rows, length]:

    tokens, targets int32; positions int32 (from 0 at each document and each row); segments int32 (1, 2, .. in a
    row, 0 for padding); weights float32 (1 for a real target, else 0).
    """

    data: Source
    fingerprint: str
    tokenizer: Codec
    heldout_rows: int

    @property
    def vocab(self) -> int:
        return self.tokenizer.vocab

    @abc.abstractmethod
    def batch(self, n: int, host: int = 0, hosts: int = 1) -> Batch:
        """This host's rows of batch n: hosts take equal slices one after another."""

    @abc.abstractmethod
    def heldout_batches(self, rows: int | None = None, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        """What is held out, once, in batches of the full shape; the last is padded. rows: only so many of it."""

    def batches(
        self, start: int = 0, host: int = 0, hosts: int = 1, prefetch: int = 2, workers: int = 1
    ) -> Iterator[Batch]:
        """Batches start, start + 1, ... without end, read ahead by Grain's threads.

        prefetch: batches kept ready; workers: threads. Neither changes what comes; 0 of either reads in this thread.
        """
        self.share(host, hosts)
        check_number(start)
        direct = range(start, start + DIRECT)
        ahead = self._ahead(start + DIRECT, host, hosts, prefetch, min(workers, prefetch))
        return itertools.chain((self.batch(n, host, hosts) for n in direct), ahead)

    def _ahead(self, start: int, host: int, hosts: int, prefetch: int, threads: int) -> Iterator[Batch]:
        import grain

        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
        yield from grain.MapDataset.source(_Batches(self, start, host, hosts)).to_iter_dataset(options)

    def bytes_of(self, batch: Batch) -> int:
        """Bytes of text that a batch's real targets stand for: what nats are divided by for bits per byte."""
        return int(self.tokenizer.token_bytes[batch["targets"]][batch["weights"] > 0].sum())

    def share(self, host: int, hosts: int) -> tuple[int, int]:
        """First row and number of rows of a host in each batch."""
        if hosts < 1 or self.data.batch % hosts:
            raise DataError(f"batch={self.data.batch} can't be shared equally by {hosts} hosts; make it a multiple")
        if not 0 <= host < hosts:
            raise DataError(f"there is no host {host} of {hosts}: hosts are numbered 0 to {hosts - 1}")
        count = self.data.batch // hosts
        return host * count, count


def check_number(n: int) -> None:
    if n < 0:
        raise DataError(f"there is no batch {n}: batches are numbered from 0")


class _Batches:
    """Batches from `start` on, in the form Grain reads at random."""

    def __init__(self, dataset: Dataset, start: int, host: int, hosts: int) -> None:
        self.dataset, self.start, self.host, self.hosts = dataset, start, host, hosts

    def __len__(self) -> int:
        return sys.maxsize - self.start

    def __getitem__(self, index: int) -> Batch:
        return self.dataset.batch(self.start + int(index), self.host, self.hosts)

    def __repr__(self) -> str:
        return f"batches({self.dataset.fingerprint}, start={self.start}, host={self.host} of {self.hosts})"
