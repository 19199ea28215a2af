"""A run's data as its objective reads it."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from lm.data.dataset import Dataset
from lm.data.errors import DataError
from lm.data.packing import Batch
from lm.data.tokenizers import ByteCodec
from lm.models.model import Model
from lm.objectives.draws import HELDOUT, draws
from lm.objectives.objective import Objective


def prepared(dataset: Dataset, objective: Objective, model: Model) -> Dataset:
    """`dataset` for training `model` on an objective: itself, where that reads packed documents as they are."""
    reads_as_it_is = type(objective).prepare is Objective.prepare
    return dataset if reads_as_it_is else Prepared(dataset, objective, model)


class Prepared(Dataset):
    """Batches that an objective has prepared. What is held out is prepared alike at every evaluation, whatever the
    seed of the data."""

    def __init__(self, inner: Dataset, objective: Objective, model: Model) -> None:
        self.inner, self.objective, self.model = inner, objective, model
        self.data, self.fingerprint = inner.data, inner.fingerprint
        self.tokenizer, self.heldout_rows = inner.tokenizer, inner.heldout_rows
        self._token_bytes = np.pad(inner.tokenizer.token_bytes, (0, objective.extra))  # the objective's are no text

    @property
    def vocab(self) -> int:
        return self.inner.vocab + self.objective.extra

    def batch(self, n: int, host: int = 0, hosts: int = 1) -> Batch:
        low, count = self.share(host, hosts)
        mine = draws(self.data.seed, n, low, count, self.data.batch)
        found = self.objective.prepare(self.inner.batch(n, host, hosts), mine, self.tokenizer, self.model)
        if hosts == 1 and not found["weights"].any():
            raise DataError(
                f"{type(self.objective).__name__} finds nothing to predict in batch {n}: its documents are too short"
            )
        return found

    def heldout_batches(self, rows: int | None = None, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        low, count = self.share(host, hosts)
        for n, batch in enumerate(self.inner.heldout_batches(rows, host, hosts)):
            mine = draws(0, n, low, count, self.data.batch, HELDOUT)
            yield self.objective.prepare(batch, mine, self.tokenizer, self.model)

    def bytes_of(self, batch: Batch) -> int:
        return int(self._token_bytes[batch["targets"]][batch["weights"] > 0].sum())


def shapes(objective: Objective, model: Model, rows: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Of a prepared batch, from rows of `length` tokens."""
    ints = {name: np.zeros((1, length), np.int32) for name in ("tokens", "targets")}
    ids = {"positions": np.arange(length, dtype=np.int32)[None], "segments": np.ones((1, length), np.int32)}
    packed = {**ints, **ids, "weights": np.ones((1, length), np.float32)}
    one = objective.prepare(packed, draws(0, 0, 0, 1, 1), ByteCodec(), model)
    return {name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for name, x in one.items()}
