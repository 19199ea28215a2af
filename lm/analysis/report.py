"""A report: text, tables and figures, written as one page that needs no network, and as files to work with."""

from __future__ import annotations

import base64
import io
import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2
import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from lm.analysis.style import STYLE
from lm.analysis.text import Column, cells, plain_columns, plain_table
from lm.errors import UserError
from lm.files import reason, write_atomically

DPI = 160


class ReportError(UserError):
    """A report that can't be made or written, with what to do instead."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: `frame` goes to NAME.csv in full; readers see `columns`, or every column where none are given."""

    name: str
    frame: pd.DataFrame
    caption: str = ""
    columns: tuple[Column, ...] = ()

    @property
    def shown(self) -> tuple[Column, ...]:
        return self.columns or plain_columns(self.frame)

    @property
    def headings(self) -> list[tuple[str, bool]]:
        """Each heading, and whether its column is set to the left."""
        return [(c.heading, c.is_text) for c in self.shown]

    @property
    def cells(self) -> list[list[str]]:
        return cells(self.frame, self.shown)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure: NAME.png, NAME.svg, and on the page."""

    name: str
    figure: Figure
    caption: str = ""

    @property
    def width(self) -> int:
        """Pixels on the page, so that letters are of one size in all figures."""
        return round(94 * self.figure.get_size_inches()[0])


@dataclass(frozen=True)
class Code:
    """Text that is shown as it is: a command."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with paragraphs (`str`), code, tables and plots, in reading order.

    `terminal` says whether the section's words and tables are for the terminal too.
    """

    heading: str
    items: tuple[str | Code | Table | Plot, ...]
    terminal: bool = True


@dataclass(frozen=True, kw_only=True)
class Report:
    """A title and sections. Raises ReportError for two items of one name, or a name that can't be a file's."""

    title: str
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for item in (*self.tables, *self.plots):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", item.name):
                raise ReportError(f"'{item.name}' can't name a table or figure; use letters, digits, - and _")
            if item.name in seen:
                raise ReportError(f"two items of the report are called '{item.name}'; rename one")
            seen.add(item.name)

    def _items(self) -> Iterator[str | Code | Table | Plot]:
        for section in self.sections:
            yield from section.items

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(item for item in self._items() if isinstance(item, Table))

    @property
    def plots(self) -> tuple[Plot, ...]:
        return tuple(item for item in self._items() if isinstance(item, Plot))

    def write(self, folder: str | os.PathLike[str], page: str | os.PathLike[str] | None = None) -> Path:
        """Writes report.html, and for every figure NAME.png and NAME.svg, for every table NAME.csv, into `folder`; the
        page to `page` where that is given.

        Each file is complete or absent, and the page comes last, so a page that is there is a whole one.
        Returns its path. Raises UserError where `folder` can't be written.
        """
        folder = Path(folder)
        page = folder / "report.html" if page is None else Path(page)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            page.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReportError(f"the report can't be written to {folder}: {reason(error)}") from error
        for table in self.tables:
            write_atomically(folder / f"{table.name}.csv", table.frame.to_csv(index=False))
        images = {}
        for plot in self.plots:
            images[plot.name] = render(plot.figure, "png")
            write_atomically(folder / f"{plot.name}.png", images[plot.name])
            write_atomically(folder / f"{plot.name}.svg", render(plot.figure, "svg"))
        write_atomically(page, self.html(images))
        return page

    def html(self, images: dict[str, bytes] | None = None) -> str:
        """The page. `images` are the figures' PNGs where they have been drawn already."""
        images = images or {plot.name: render(plot.figure, "png") for plot in self.plots}
        encoded = {name: base64.b64encode(image).decode() for name, image in images.items()}
        kinds = {Code: "code", Table: "table", Plot: "plot"}
        sections = [
            (section.heading, [(kinds.get(type(item), "text"), item) for item in section.items])
            for section in self.sections
        ]
        return _environment.get_template("report.html").render(report=self, sections=sections, images=encoded)

    def text(self, width: int = 120) -> str:
        """The sections meant for the terminal: their words and tables, without the figures."""
        parts = [f"{self.title}\n{'=' * len(self.title)}"]
        for section in self.sections:
            items = [i for i in section.items if not isinstance(i, Plot)] if section.terminal else []
            if items:
                parts += [section.heading + "\n" + "-" * len(section.heading)]
            for item in items:
                if isinstance(item, Table):
                    parts.append(plain_table(item.frame, item.shown, width))
                    parts += [textwrap.fill(item.caption, width)] if item.caption else []
                else:
                    parts.append(item.text if isinstance(item, Code) else textwrap.fill(item, width))
        return "\n\n".join(parts) + "\n"


def render(figure: Figure, kind: str) -> bytes:
    """The figure as a PNG or SVG file; the same figure gives the same bytes."""
    out = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "lm"}):
        figure.savefig(out, format=kind, dpi=DPI, metadata=metadata)
    return out.getvalue()


_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("lm.analysis", "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def _joined(words: str) -> str:
    """Keeps 'tokens/s' on one line."""
    return words.replace("/", "/\N{WORD JOINER}")


def _unbroken(cell: str) -> str:
    """A cell that a narrow page may cut only where it reads well: numbers before a bracket, words between words."""
    return re.sub(r" (?![\[(])", "\N{NO-BREAK SPACE}", cell) if re.search(r"\d[^a-z]*$", cell) else _joined(cell)


_environment.filters.update(joined=_joined, unbroken=_unbroken)
