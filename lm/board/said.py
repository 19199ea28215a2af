"""What the report of an experiment says in words: the question it asks and the answer it gives."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

LOOKED_AT = 100_000  # bytes; both sections stand at the beginning, before the first figure


@dataclass(frozen=True)
class Said:
    """The first paragraph under "Question" ("" if there is none), and the paragraphs under "Answer"."""

    question: str = ""
    answer: tuple[str, ...] = ()


def said(report: Path) -> Said:
    """The words of a report.html that `lm.analysis` wrote; nothing where there is no such file."""
    try:
        return _said(report, report.stat().st_mtime_ns)
    except OSError:
        return Said()


@functools.lru_cache(maxsize=256)
def _said(report: Path, changed: int) -> Said:
    with report.open("rb") as file:
        text = file.read(LOOKED_AT).decode(errors="replace")
    words = _Words()
    words.feed(text)
    questions = words.found.get("Question", [])
    return Said(questions[0] if questions else "", tuple(words.found.get("Answer", [])))


@dataclass
class _Words(HTMLParser):
    """Paragraphs by the heading they stand under."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._heading, self._tag, self._text = "", "", ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("h2", "p"):
            self._tag, self._text = tag, ""

    def handle_data(self, data: str) -> None:
        if self._tag:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag != self._tag or not tag:
            return
        text = " ".join(self._text.split())
        if tag == "h2":
            self._heading = text
        else:
            self.found.setdefault(self._heading, []).append(text)
        self._tag = ""
