"""Encoded splits on disk: token arrays mapped into memory, written once for each content.

A store is a folder named by the data's fingerprint. It is built beside its place and renamed into it, so that
it is whole or absent, and processes that build it at once end with one of their equal copies.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lm.data.corpora import Corpus
from lm.data.errors import DataError
from lm.data.split import is_heldout
from lm.data.tokenizers import Codec, Tokenizer

LAYOUT = 1  # part of the fingerprint: raise it when documents, split or layout come out differently
ENCODE_BYTES = 1 << 22


@dataclass(frozen=True)
class Split:
    """One side of the corpus. `tokens` [tokens] holds `eot d1 .. dn` for each document; `offsets` [documents + 1]."""

    tokens: np.ndarray
    offsets: np.ndarray

    @property
    def documents(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Store:
    train: Split
    heldout: Split
    codec: Codec


class _Damaged(Exception):
    pass


def open_or_build(root: Path, fingerprint: str, corpus: Corpus, tokenizer: Tokenizer, share: float) -> Store:
    """The store of this fingerprint below `root`, built when it isn't there or is damaged.

    Raises DataError for bad documents, an empty split, and a cache that can't be written.
    """
    place = root / fingerprint
    with contextlib.suppress(_Damaged):
        return _open(place, tokenizer)
    try:
        root.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".building-", dir=root))
        try:
            _build(made, corpus, tokenizer, share)
            _publish(made, place, tokenizer)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"the data cache {root} can't be written: {error.strerror or error}; free space there, or set LM_CACHE"
        ) from None
    return _open(place, tokenizer)


def _publish(made: Path, place: Path, tokenizer: Tokenizer) -> None:
    for _ in range(10):
        try:
            made.rename(place)
            return
        except OSError:
            if not place.exists():
                raise
        try:  # another process was first: its copy equals ours, unless it is the damaged one
            _open(place, tokenizer)
            return
        except _Damaged:
            aside = Path(tempfile.mkdtemp(prefix=".damaged-", dir=place.parent))
            with contextlib.suppress(FileNotFoundError):
                place.rename(aside / "store")
            shutil.rmtree(aside, ignore_errors=True)
    raise DataError(f"the data cache {place} is damaged and comes back as often as it is removed; remove it by hand")


# ---- reading -------------------------------------------------------------------------------------------------


def _open(place: Path, tokenizer: Tokenizer) -> Store:
    try:
        meta = json.loads((place / "meta.json").read_text())
        if meta["layout"] != LAYOUT:
            raise _Damaged
        codec = tokenizer.loads((place / "tokenizer.json").read_text(encoding="utf-8"))
        dtype = np.dtype(meta["dtype"])
        return Store(_map(place, "train", meta, dtype), _map(place, "heldout", meta, dtype), codec)
    except DataError:
        raise
    except Exception:  # whatever a damaged file can cause; tokenizers raises a bare Exception
        raise _Damaged from None


def _map(place: Path, name: str, meta: dict[str, Any], dtype: np.dtype) -> Split:
    tokens = _array(place / f"{name}.tokens", dtype, meta[name]["tokens"])
    offsets = np.array(_array(place / f"{name}.offsets", np.dtype("<i8"), meta[name]["documents"] + 1))
    if offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 2).any():
        raise _Damaged
    return Split(tokens, offsets)


def _array(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    if path.stat().st_size != count * dtype.itemsize:
        raise _Damaged
    return np.asarray(np.memmap(path, dtype, mode="r", shape=(count,))) if count else np.zeros(0, dtype)


# ---- building ------------------------------------------------------------------------------------------------


def _build(folder: Path, corpus: Corpus, tokenizer: Tokenizer, share: float) -> None:
    codec = tokenizer.train(text for text in _texts(corpus) if not is_heldout(text, share))
    dtype = np.min_scalar_type(codec.vocab - 1).newbyteorder("<")
    counts = {"train": [0], "heldout": [0]}  # offsets, while they grow
    with open(folder / "train.tokens", "wb") as train, open(folder / "heldout.tokens", "wb") as heldout:
        for texts in _batches(_texts(corpus)):
            sides = [is_heldout(text, share) for text in texts]
            for held, ids in zip(sides, codec.encode_all(texts), strict=True):
                file, name = (heldout, "heldout") if held else (train, "train")
                file.write(np.concatenate([[codec.eot], ids]).astype(dtype).tobytes())
                counts[name].append(counts[name][-1] + len(ids) + 1)
    _check_not_empty(corpus, share, len(counts["train"]) - 1, len(counts["heldout"]) - 1)
    meta: dict[str, Any] = {"layout": LAYOUT, "dtype": dtype.str, "licence": corpus.licence}
    for name, offsets in counts.items():
        np.array(offsets, "<i8").tofile(folder / f"{name}.offsets")
        meta[name] = {"tokens": offsets[-1], "documents": len(offsets) - 1}
    (folder / "tokenizer.json").write_text(codec.dumps(), encoding="utf-8")
    (folder / "meta.json").write_text(json.dumps(meta))
    for path in folder.iterdir():  # on the disk before the name: a rename may outlive a power cut that data doesn't
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _texts(corpus: Corpus) -> Iterator[str]:
    return filter(None, corpus.documents())  # an empty document has nothing to predict


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of about ENCODE_BYTES of text, so that a tokenizer can use all cores and memory stays bounded."""
    texts = iter(texts)
    for first in texts:
        batch, size = [first], len(first)
        while size < ENCODE_BYTES and (more := list(itertools.islice(texts, 1))):
            batch += more
            size += len(more[0])
        yield batch


def _check_not_empty(corpus: Corpus, share: float, train: int, heldout: int) -> None:
    documents = train + heldout
    if documents == 0:
        raise DataError(f"{corpus} is empty: it has no document with any text in it")
    if train == 0 or (heldout == 0 and share > 0):
        side = "left to train on" if train == 0 else "held out"
        raise DataError(
            f"{corpus} has {documents} document{'s' * (documents > 1)} and none is {side} at heldout={share:g}; "
            "give it more documents, or cut a long text into documents with Text.separator"
        )
