"""One SELECT over tables and over the rows that runs wrote: DuckDB in this process, no server, no import step.

The rows stay in their files, which every query reads as they are, in parallel: a query over them is as fast as their
JSON is parsed. A file that is being written, or that ends in a torn line, is read from a copy of its whole rows.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.errors import UserError
from lm.train.folder import RunFolder
from lm.train.rows import NONFINITE, read, whole

if TYPE_CHECKING:
    import pandas as pd
    from duckdb import DuckDBPyConnection

Tables = Mapping[str, Callable[[], "pd.DataFrame"]]

ROWS = "rows"
EDGE = 4096  # bytes at either end of a file of rows that are looked at for the names in it
# What rows have in any case. All other numbers are DOUBLE: DuckDB would round the first 2.5 of a whole number's column.
ALWAYS = {"step": "BIGINT", "split": "VARCHAR", "loss": "DOUBLE", "tokens": "BIGINT"}
NOT_NUMBERS = {NONFINITE: "MAP(VARCHAR, VARCHAR)"}


class SqlError(UserError):
    """A query that can't be run on the results, with the views that there are."""


def select(sql: str, tables: Tables, folders: Sequence[RunFolder], exact: bool = False) -> pd.DataFrame:
    """What one SELECT gives over the views `tables` and `rows`. A table is made only where the query names it.

    `rows` has what the runs in `folders` have written so far, run by run: `id` (the folder's name) and every name of
    any run's rows; NULL where a row lacks it, NaN where it is no number. The names are those of each file's first and
    last rows; one that occurs only between them is found when a query asks for it by name, or at once if `exact`.

    The query can neither write nor read files elsewhere. Raises SqlError, and RowsError for rows that aren't JSON.
    """
    import duckdb

    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        views = _Views(connection, tables, folders, Path(scratch))
        try:
            _check(sql)
            views.make(name for name in (*tables, ROWS) if name in sql.casefold())
            if exact:
                views.widen()
            views.lock()
            try:
                views.narrow(sql)
            except duckdb.BinderException:
                if exact or not views.widen():
                    raise
            return connection.execute(sql).df()
        except duckdb.Error as error:
            raise _refusal(error, views) from None


def parquet(frame: pd.DataFrame) -> bytes:
    """A table as the contents of a Parquet file, with the types that it has in queries."""
    import duckdb

    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        _add(connection, "frame", frame)
        path = Path(scratch) / "frame"
        connection.table("frame").write_parquet(str(path))
        return path.read_bytes()


class _Views:
    """The views of one connection: made when asked for, since thousands of files may be behind one."""

    def __init__(
        self, connection: DuckDBPyConnection, tables: Tables, folders: Sequence[RunFolder], scratch: Path
    ) -> None:
        self.connection, self.tables, self.folders, self.scratch = connection, tables, folders, scratch
        self.made: set[str] = set()
        self.types: dict[str, str] = {}  # of the columns of rows
        self.files: list[str] = []

    def make(self, names: Iterable[str]) -> None:
        for name in names:
            if name == ROWS:
                self.files, self.types = _survey(self.folders, self.scratch)
                self.connection.execute("SET VARIABLE files = $files", {"files": self.files})
                self._rows()
            else:
                _add(self.connection, name, self.tables[name]())
            self.made.add(name)

    def widen(self) -> bool:
        """Looks for names in all rows instead of some; whether there are more."""
        found = _names_in_all(self.connection, self.types) if ROWS in self.made and self.files else {}
        self.types |= found
        if found:
            self._rows()
        return bool(found)

    def narrow(self, sql: str) -> None:
        """Has only those columns of rows parsed that the plan of the query reads: each costs something for every file.

        The others are NULL then, of their type, so that the query means what it meant before.
        """
        if ROWS not in self.made or not self.files:
            return
        found = self.connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchone()
        assert found is not None
        read = _read(json.loads(found[1]))
        if read:  # else the plan reads no file, or names what it reads in another way
            self._rows(name for names in read for name in names)

    def lock(self) -> None:
        """From here on only files beside the runs' can be read, no variable of this process, and no setting changed."""
        above = {folder.path.parent for folder in self.folders} | {self.scratch}
        values = ", ".join(literal(str(path.resolve())) for path in sorted(above))
        for setting in (
            f"temp_directory = {literal(str(self.scratch))}",
            f"allowed_directories = [{values}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self.connection.execute(f"SET {setting}")

    def described(self) -> str:
        """Every view with its columns."""
        names = (*self.tables, ROWS)
        self.make(name for name in names if name not in self.made)
        keywords = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
        reserved = {word for (word,) in self.connection.execute(keywords).fetchall()}

        def columns(view: str) -> str:
            plain = r"[A-Za-z_]\w*"
            found = self.connection.table(view).columns
            return ", ".join(n if re.fullmatch(plain, n) and n not in reserved else _name(n) for n in found)

        return ", ".join(f"{name} ({columns(name)})" for name in names)

    def _rows(self, parsed: Iterable[str] | None = None) -> None:
        """Makes the view. parsed: the names to be taken from the files, None for all."""
        kept = set(self.types if parsed is None else parsed)
        types = {name: kind for name, kind in self.types.items() if name in kept}
        columns = ", ".join(
            _column(n, kind) if self.files and n in types else f"NULL::{kind} AS {_name(n)}"
            for n, kind in self.types.items()
        )
        rows = f"SELECT parse_path(filename)[-2] AS id, {columns} FROM {_source({**types, **NOT_NUMBERS})}"
        none = f"SELECT '' AS id, {columns} WHERE false"
        self.connection.execute(f"CREATE OR REPLACE VIEW {ROWS} AS {rows if self.files else none}")


# ---- rows in their files ----------------------------------------------------------------------------------------


def _survey(folders: Sequence[RunFolder], scratch: Path) -> tuple[list[str], dict[str, str]]:
    """The files to read, and the columns that their first and last rows have.

    What may grow while it is read, or ends in a torn line, is copied to `scratch` without that line.
    """
    files: list[str] = []
    kinds: dict[str, set[str]] = {}
    resolved = functools.cache(Path.resolve)  # of the one folder that all runs are in
    for folder in folders:
        path = resolved(folder.path.parent) / folder.path.name / folder.rows.name
        try:
            edges = _edges(path)
        except FileNotFoundError:
            continue
        end = whole(edges)
        lines = edges[:end].splitlines()
        if not lines:
            continue
        for line in lines[:2] + lines[2:][-1:]:
            for name, value in _parsed(line, path).items():
                kinds.setdefault(name, set()).add(_kind(value))
        if end < len(edges) or folder.status() == "running":
            data, path = path.read_bytes(), scratch.resolve() / folder.path.name / path.name
            path.parent.mkdir()
            path.write_bytes(data[: whole(data)])
        files.append(str(path))
    kinds.pop(NONFINITE, None)
    return files, ALWAYS | {name: _type(found) for name, found in kinds.items() if name not in ALWAYS}


def _edges(path: Path) -> bytes:
    """The first and last lines of a file; all of it where it is short, or where its lines are long."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > 2 * EDGE:
            head = file.read(EDGE)
            file.seek(size - EDGE)
            tail = file.read(EDGE)
            first, last = head.rfind(b"\n") + 1, tail.find(b"\n") + 1
            if first and 0 < last < len(tail):
                return head[:first] + tail[last:]
            file.seek(0)
        return file.read()


def _parsed(line: bytes, path: Path) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        read(path)  # raises the error that names the line
        raise


def _kind(value: Any) -> str:
    """The SQL type of a value in JSON; "" if null, which has none."""
    if value is None or isinstance(value, bool):
        return "" if value is None else "BOOLEAN"
    return "DOUBLE" if isinstance(value, int | float) else "VARCHAR" if isinstance(value, str) else "JSON"


def _type(kinds: Iterable[str]) -> str:
    """The type of a column with values of these: a number where all are null, JSON where they don't agree."""
    found = set(kinds) - {""}
    return found.pop() if len(found) == 1 else "JSON" if found else "DOUBLE"


def _read(plan: list[dict[str, Any]]) -> list[list[str]]:
    """The columns that a plan takes from files, scan by scan."""
    found: list[list[str]] = []
    for node in plan:
        names = node["extra_info"].get("Projections")
        if node["name"].strip() == "READ_JSON" and names is not None:
            found.append([names] if isinstance(names, str) else names)
        found += _read(node["children"])
    return found


def _names_in_all(connection: DuckDBPyConnection, known: Mapping[str, str]) -> dict[str, str]:
    """The columns that any row has besides the known ones. Parses every row twice."""
    objects = "read_json_objects(getvariable('files'), format = 'newline_delimited')"
    names = {
        name for (name,) in connection.execute(f"SELECT DISTINCT unnest(json_keys(json)) FROM {objects}").fetchall()
    }
    new = sorted(names - set(known) - {NONFINITE})
    if not new:
        return {}
    kinds = ", ".join(f"list(DISTINCT json_type({_name(name)}))" for name in new)
    found = connection.execute(f"SELECT {kinds} FROM {_source(dict.fromkeys(new, 'JSON'))}").fetchone()
    assert found is not None
    other = {"VARCHAR": "VARCHAR", "BOOLEAN": "BOOLEAN", "NULL": "", "OBJECT": "JSON", "ARRAY": "JSON"}
    return {name: _type(other.get(kind, "DOUBLE") for kind in of if kind) for name, of in zip(new, found, strict=True)}


def _source(types: Mapping[str, str]) -> str:
    columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types.items())
    options = f"format = 'newline_delimited', records = true, filename = true, columns = {{{columns}}}"
    return f"read_json(getvariable('files'), {options})"


def _column(name: str, kind: str) -> str:
    if kind != "DOUBLE":
        return _name(name)
    return f"coalesce({_name(name)}, {NONFINITE}[{literal(name)}]::DOUBLE) AS {_name(name)}"


# ---- tables -----------------------------------------------------------------------------------------------------


def _add(connection: DuckDBPyConnection, name: str, frame: pd.DataFrame) -> None:
    """A table of its own from a frame. A column of mixed values is one of text."""
    import pandas as pd

    columns = {}
    for column in frame.columns:
        if frame[column].dtype.kind == "O":
            values = [_cell(value) for value in frame[column]]
            if len({isinstance(value, str) for value in values if value is not None}) > 1:
                values = [value if value is None else str(value) for value in values]
            columns[column] = pd.Series(values, index=frame.index, dtype=object)
    connection.register("given", frame.assign(**columns))
    connection.execute(f"CREATE TABLE {_name(name)} AS SELECT * FROM given")
    connection.unregister("given")


def _cell(value: Any) -> str | int | float | None:
    if value is None or isinstance(value, str | int | float):
        return None if value != value else value
    return json.dumps(value, default=plain)


def plain(value: Any) -> Any:
    """Python's own value for one of NumPy or pandas, as `json.dumps` asks for it."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


# ---- words ------------------------------------------------------------------------------------------------------


def _check(sql: str) -> None:
    """Raises SqlError for all but one SELECT, which is all that reading needs."""
    import duckdb

    statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SqlError(
            "results are only read: give one SELECT, e.g. select arm, avg(heldout_loss) from runs group by arm"
        )


def _refusal(error: Exception, views: _Views) -> UserError:
    """DuckDB's words on one line, and what there is to ask for where a name was wrong."""
    import duckdb

    said = " ".join(re.split(r"\n\n|\nTry |\nPossible |\nDid you ", str(error))[0].split())
    broken = re.search(r'Malformed JSON in file "(.*?)"', said)
    if broken:
        _find_bad_row(Path(broken[1]).parent.name, views.folders)
    if isinstance(error, duckdb.BinderException | duckdb.CatalogException | duckdb.ParserException):
        return SqlError(f"{said}; there are: {views.described()}")
    return SqlError(said)


def _find_bad_row(name: str, folders: Iterable[RunFolder]) -> None:
    """Raises the RowsError that says in which line a run's rows are no JSON."""
    for folder in folders:
        if folder.path.name == name:
            read(folder.rows)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
