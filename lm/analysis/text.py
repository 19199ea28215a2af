"""Numbers and tables as text."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lm.analysis.tables import rows

MISSING = "-"
_GAP = "  "


def si(x: float, digits: int = 3) -> str:
    """A number with an SI prefix: 1234567 -> 1.23M."""
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    power = min(max(math.floor(math.log10(abs(float(f"{x:.{digits - 1}e}"))) / 3), 0), 6)
    scaled = x / 1000**power
    whole = len(str(int(abs(scaled))))
    text = f"{scaled:.{max(digits - whole, 0)}f}" if power else f"{x:.{digits}g}"
    return text + ["", "k", "M", "G", "T", "P", "E"][power]


def is_missing(x: object) -> bool:
    return x is None or x is pd.NA or x is pd.NaT or (isinstance(x, float) and math.isnan(x)) or x == ""


def either(n: float, one: str, many: str | None = None) -> str:
    """`n` with its noun: 1 seed, 2 seeds."""
    return f"{n:g} {one if n == 1 else many or one + 's'}"


class _Formatter(string.Formatter):
    """`str.format` with one more specification, `si`, and with dots in names (`{train.rate}` is one name)."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        return kwargs[field_name], field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        return si(float(value)) if format_spec == "si" else super().format_field(value, format_spec)


_formatter = _Formatter()


@dataclass(frozen=True)
class Column:
    """A column as readers see it: a heading, and templates over a row's values (`{loss:.4f} ± {sd:.4f}`).

    The first template whose values are all there is used, so `("{loss:.4f} ± {sd:.4f}", "{loss:.4f}")` shows a
    single seed without a spread; where none fits, the cell says that the value is missing. Format
    specifications are Python's, and `si` for 1.23M.
    """

    heading: str
    templates: tuple[str, ...]

    def cell(self, row: Mapping[str, Any]) -> str:
        for template in self.templates:
            names = [name for _, name, _, _ in string.Formatter().parse(template) if name]
            if not any(is_missing(row.get(name)) for name in names):
                return _formatter.vformat(template, (), row)
        return MISSING

    @property
    def is_text(self) -> bool:
        """True for columns of words, which are set to the left."""
        return not any(spec for _, _, spec, _ in string.Formatter().parse(self.templates[0]))


def plain_columns(frame: pd.DataFrame, formats: Mapping[str, str] | None = None) -> tuple[Column, ...]:
    """Every column of `frame`, with the given formats or ones that suit its type."""
    formats = formats or {}

    def spec(name: str) -> str:
        if name in formats:
            return formats[name]
        kind = frame[name].dtype.kind
        return ":,.6g" if kind == "f" else ":,d" if kind in "iu" else ""

    names = [str(c) for c in frame.columns]
    return tuple(Column(n, ("{" + n + (spec(n) if spec(n)[:1] in ("", ":") else f":{spec(n)}") + "}",)) for n in names)


def cells(frame: pd.DataFrame, columns: Sequence[Column]) -> list[list[str]]:
    return [[column.cell(row) for column in columns] for row in rows(frame)]


def plain_table(frame: pd.DataFrame, columns: Sequence[Column], width: int = 120) -> str:
    """The table in fixed-width text; one that is wider than `width` is cut into blocks that repeat the first column."""
    body = cells(frame, columns)
    lines = [[c.heading for c in columns], *body]
    sizes = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    blocks: list[list[int]] = []
    for i in range(1, len(columns)):
        used = sum(sizes[j] + len(_GAP) for j in blocks[-1]) if blocks else width
        if used + sizes[i] > width:
            blocks.append([0])
        blocks[-1].append(i)

    def line(cells: list[str], block: list[int]) -> str:
        padded = (cells[i].ljust(sizes[i]) if columns[i].is_text else cells[i].rjust(sizes[i]) for i in block)
        return _GAP.join(padded).rstrip()

    def text(block: list[int]) -> str:
        rule = _GAP.join("-" * sizes[i] for i in block)
        return "\n".join([line(lines[0], block), rule, *(line(cells, block) for cells in body)])

    return "\n\n".join(text(block) for block in blocks or [[0]])
