"""Files as they are: CSV with every cell in its place, JSON, JSON lines. All errors name the file and the line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lm.analysis.tables import TableError
from lm.files import first_line, reason

Paths = str | Path | Iterable[str | Path]


def cells(path: str | Path) -> pd.DataFrame:
    """A CSV file (.tsv: with tabs) under its own headings; the index is the line of each row. Blank lines are left out.

    Numbers keep every digit. Raises TableError for a file that isn't there, is empty or isn't a table, and for two
    columns of one name.
    """
    path = found(path)
    how: dict[str, Any] = {
        "sep": "\t" if ".tsv" in path.suffixes else ",",
        "encoding": "utf-8-sig",
        "skipinitialspace": True,
        "skip_blank_lines": False,
        "index_col": False,
        "float_precision": "round_trip",
    }
    try:
        headings = pd.read_csv(path, header=None, nrows=1, dtype=str, **how).iloc[0].dropna().str.strip()
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row of more cells than headings
            frame = pd.read_csv(path, low_memory=False, **how)
    except pd.errors.EmptyDataError:
        raise TableError(f"{path} is empty; it needs a line of headings and a row for each run") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        raise TableError(f"{path} isn't a table of comma-separated values: {first_line(error)}") from None
    except OSError as error:
        raise TableError(f"can't read {path}: {reason(error)}") from error
    twice = headings[headings.duplicated()]
    if len(twice):
        raise TableError(f"{path} has two columns '{twice.iloc[0]}'; give them different headings")
    frame.columns = [str(c).strip() for c in frame.columns]
    frame.index += 2
    frame = frame.dropna(how="all")
    if frame.empty:
        raise TableError(f"{path} has headings and no rows")
    return frame


def objects(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with its line. Raises TableError for what isn't one, and for none."""
    path = found(path)
    lines = [(number, line) for number, line in enumerate(_text(path).split("\n"), start=1) if line.strip()]
    if not lines:
        raise TableError(f"{path} is empty; it needs a JSON object for each run, one a line")
    return [(number, _object(_json(line, path, number), path, number)) for number, line in lines]


def documents(paths: Paths, key: str, what: str) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """Files of one JSON object each that has `key`, and a note about files of folders that aren't such.

    paths: files, or folders that are searched with all below them. what: the files, in words.
    Raises TableError for a file that is named and isn't one, for damaged ones, and where there are none.
    """
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]
    read, others = [], 0
    for one in given:
        for path in sorted(one.rglob("*.json")) if one.is_dir() else [found(one)]:
            value = _json(_text(path), path)
            if isinstance(value, dict) and key in value:
                read.append((path, value))
            elif one.is_dir():
                others += 1
            else:
                raise TableError(f"{path} is no {what}: it has no '{key}'")
    if not read:
        raise TableError(f"there is no {what} in {', '.join(map(str, given)) or 'no files at all'}")
    return read, [f"{others} other JSON files of the folder left out: they have no '{key}'"] if others else []


def found(path: str | Path) -> Path:
    """The path of a file that is there. Raises TableError else."""
    path = Path(path)
    if path.is_dir():
        raise TableError(f"{path} is a folder; name the file in it")
    if not path.exists():
        raise TableError(f"there is no file {path}")
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"can't read {path}: {reason(error)}") from error


def _json(text: str, path: Path, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        where = f"{path} line {line}" if line else str(path)
        raise TableError(f"{where} isn't JSON: {error}") from None


def _object(value: Any, path: Path, line: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TableError(f"{path} line {line} holds no JSON object, but {type(value).__name__}")
    return value
