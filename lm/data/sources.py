"""A researcher's own files as corpora: plain text, JSON lines, Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.config import ConfigError, config, unknown
from lm.data import files
from lm.data.corpora import Corpus
from lm.data.errors import DataError


def _with_compressed(*suffixes: str) -> tuple[str, ...]:
    return suffixes + tuple(s + c for s in suffixes for c in files.COMPRESSED)


def text_of(row: dict[str, Any], field: str, where: str) -> str:
    """The text in a row's field. Raises DataError that names the place and the nearest field."""
    if field not in row:
        raise DataError(unknown(field, row, f"{where} has no field"))
    text = row[field]
    if not isinstance(text, str):
        raise DataError(f"{where}: field '{field}' holds {type(text).__name__}, not text; clean or drop the row")
    return text


@config
class Text(Corpus):
    """Plain UTF-8 text: a file, a folder (*.txt, *.md) or a glob, .gz and .zst too.

    separator: None makes each file a document; otherwise documents are what stands between separators, for
    instance "\\n\\n\\n" or "<|endoftext|>". One long file needs a separator to have anything to hold out.
    """

    path: str
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.separator == "":
            raise ConfigError("Text.separator is empty; give the text between documents, or None for a file a document")

    def _files(self) -> list[Path]:
        return files.find(self.path, _with_compressed(".txt", ".md"))

    def documents(self) -> Iterator[str]:
        for path in self._files():
            if self.separator is None:
                yield files.decode(b"".join(files.chunks(path)), path)
            else:
                for offset, raw in files.pieces(path, self.separator.encode()):
                    yield files.decode(raw, path, offset)

    def fingerprint(self) -> str:
        return files.digest(self._files(), "Text", repr(self.separator))


@config
class Jsonl(Corpus):
    """JSON lines: a file, a folder (*.jsonl, *.ndjson) or a glob, .gz and .zst too; a line's `field` is a document."""

    path: str
    field: str = "text"

    def _files(self) -> list[Path]:
        return files.find(self.path, _with_compressed(".jsonl", ".ndjson"))

    def documents(self) -> Iterator[str]:
        for path in self._files():
            for number, (offset, raw) in enumerate(files.pieces(path, b"\n"), start=1):
                if raw.strip():
                    yield self._document(files.decode(raw, path, offset), f"{path}:{number}")

    def _document(self, line: str, where: str) -> str:
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{where} is not JSON: {error}; mend or remove the line") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} is a JSON {type(row).__name__}, not an object with a field '{self.field}'")
        return text_of(row, self.field, where)

    def fingerprint(self) -> str:
        return files.digest(self._files(), "Jsonl", self.field)


@config
class Parquet(Corpus):
    """Parquet: a file, a folder (*.parquet) or a glob; a row's `field` is a document. Needs the extra `files`."""

    path: str
    field: str = "text"

    def _files(self) -> list[Path]:
        return files.find(self.path, (".parquet",))

    def documents(self) -> Iterator[str]:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise DataError("reading Parquet needs: pip install 'lm[files]'") from None
        for path in self._files():
            number = 0
            try:
                with pq.ParquetFile(path) as file:
                    if self.field not in file.schema_arrow.names:
                        raise DataError(unknown(self.field, file.schema_arrow.names, f"{path} has no column"))
                    for batch in file.iter_batches(batch_size=1024, columns=[self.field]):
                        for row in batch.to_pylist():
                            yield text_of(row, self.field, f"{path} row {number}")
                            number += 1
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} can't be read as Parquet: {str(error).splitlines()[0]}") from None

    def fingerprint(self) -> str:
        return files.digest(self._files(), "Parquet", self.field)
