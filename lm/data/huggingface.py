"""Datasets in the Hugging Face form: from its hub, or from a folder of files, read as a stream."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.config import ConfigError, config
from lm.data import files
from lm.data.corpora import Corpus
from lm.data.errors import DataError
from lm.data.sources import text_of
from lm.files import first_line


@config
class HuggingFace(Corpus):
    """A Hugging Face dataset, streamed: `name` on the hub, or a local folder. Needs the extra `hf`.

    config, split: as in `datasets.load_dataset`. field: the column that is a document. limit: only the first
    so many rows, for a dataset too large to keep. revision: a commit, branch or tag of the hub's repository; None is
    the newest commit there when the process first asks, for the fingerprint and the rows alike.
    """

    name: str
    config: str | None = None
    split: str = "train"
    field: str = "text"
    limit: int | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"HuggingFace.limit={self.limit} must be at least 1, or None for all rows")

    def documents(self) -> Iterator[str]:
        for number, row in enumerate(itertools.islice(self._rows(), self.limit)):
            yield text_of(row, self.field, f"{self.name} ({self.split}) row {number}")

    def _rows(self) -> Iterator[dict[str, Any]]:
        datasets = _import("datasets")
        try:
            if self._is_saved():
                stored = datasets.load_from_disk(self.name)
                yield from stored[self.split] if isinstance(stored, dict) else stored
            else:
                commit = None if Path(self.name).is_dir() else _commit(self.name, self.revision)
                yield from datasets.load_dataset(
                    self.name, self.config, split=self.split, streaming=True, revision=commit
                )
        except DataError:
            raise
        except Exception as error:  # the library raises whatever lies below it: OSError, ValueError, HTTP errors
            raise DataError(
                f"the dataset {self.name} (config {self.config}, split {self.split}) can't be read: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error

    def _is_saved(self) -> bool:
        """True for a folder written by `save_to_disk`."""
        return any(Path(self.name, mark).is_file() for mark in ("dataset_dict.json", "state.json"))

    def fingerprint(self) -> str:
        salt = ("HuggingFace", repr((self.config, self.split, self.field, self.limit)))
        if Path(self.name).is_dir():
            return files.digest(files.find(self.name, ("",)), *salt)
        commit = _commit(self.name, self.revision)
        return hashlib.blake2b("\0".join((*salt, self.name, commit)).encode(), digest_size=16).hexdigest()


@functools.cache  # what is fingerprinted must be what is read, whatever is pushed in between
def _commit(name: str, revision: str | None) -> str:
    """The hash of the commit that a revision of a dataset on the hub stands for."""
    hub = _import("huggingface_hub")
    try:
        return hub.HfApi().dataset_info(name, revision=revision).sha
    except Exception as error:
        raise DataError(
            f"'{name}' is no local folder, and the hub doesn't give its revision: {first_line(error)}"
        ) from error


def _import(module: str) -> Any:
    try:
        return __import__(module)
    except ImportError:
        raise DataError("reading Hugging Face datasets needs: pip install 'lm[hf]'") from None
