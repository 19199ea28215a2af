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
from lm.train.rows import NONFINITE, RowsError, read, whole

if TYPE_CHECKING:
    import pandas as pd
    from duckdb import DuckDBPyConnection

Tables = Mapping[str, Callable[[], "pd.DataFrame"]]

ROWS = "rows"
EDGE = 4096  # bytes at either end of a file of rows that are looked at for the names in it
# What rows have in any case. All other numbers are DOUBLE: DuckDB would round the first 2.5 of a whole number's column.
ALWAYS = {"step": "BIGINT", "split": "VARCHAR", "loss": "DOUBLE", "tokens": "BIGINT"}


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
                return connection.execute(sql).df()
            except duckdb.BinderException:
                if exact or not views.widen():
                    raise
                return connection.execute(sql).df()
        except duckdb.Error as error:
            raise _refusal(error, views) from None


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table as Parquet, its types as `select` sees them."""
    import duckdb

    with duckdb.connect() as connection:
        _add(connection, "frame", frame)
        connection.table("frame").write_parquet(str(path))


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

    def lock(self) -> None:
        """From here on only the runs' own files can be read; that no statement writes was checked before."""
        allowed = {str(folder.path.resolve().parent) for folder in self.folders} | {str(self.scratch.resolve())}
        values = ", ".join(literal(path) for path in sorted(allowed))
        for setting in (
            f"temp_directory = {literal(str(self.scratch))}",
            "python_enable_replacements = false",  # a table's name must not find a variable of this process
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

    def _rows(self) -> None:
        if not self.files:
            columns = ", ".join(f"NULL::{kind} AS {_name(name)}" for name, kind in self.types.items())
            self.connection.execute(f"CREATE OR REPLACE VIEW {ROWS} AS SELECT '' AS id, {columns} WHERE false")
            return
        columns = ", ".join(_column(name, kind) for name, kind in self.types.items())
        self.connection.execute(
            f"CREATE OR REPLACE VIEW {ROWS} AS SELECT parse_path(filename)[-2] AS id, {columns} "
            f"FROM {_source({**self.types, NONFINITE: 'MAP(VARCHAR, VARCHAR)'})}"
        )


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
        for line in lines[:2] + lines[-2:]:
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
    return {name: _type(other.get(kind, "DOUBLE") for kind in of) for name, of in zip(new, found, strict=True)}


def _source(types: Mapping[str, str]) -> str:
    columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types.items())
    return f"read_json(getvariable('files'), format = 'newline_delimited', filename = true, columns = {{{columns}}})"


def _column(name: str, kind: str) -> str:
    if kind != "DOUBLE":
        return _name(name)
    return f"coalesce({_name(name)}, {NONFINITE}[{literal(name)}]::DOUBLE) AS {_name(name)}"


# ---- tables -----------------------------------------------------------------------------------------------------


def _add(connection: DuckDBPyConnection, name: str, frame: pd.DataFrame) -> None:
    """A table of its own from a frame. A column of mixed values is one of text."""
    objects = {c: [_cell(v) for v in frame[c]] for c in frame.columns if frame[c].dtype == object}
    for column, values in objects.items():
        if len({isinstance(v, str) for v in values if v is not None}) > 1:
            objects[column] = [v if v is None else str(v) for v in values]
    connection.register("given", frame.assign(**objects))
    connection.execute(f"CREATE TABLE {_name(name)} AS SELECT * FROM given")
    connection.unregister("given")


def _cell(value: Any) -> str | int | float | None:
    if value is None or isinstance(value, str | int | float):
        return None if value != value else value
    return json.dumps(value, default=str)


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
    broken = re.search(r'Malformed JSON in file "(.*?)", .*?in line (\d+): (.*)', said)
    if broken:
        path, line, why = broken.groups()
        return RowsError(f"{path} line {line} isn't JSON ({why}); remove that line to read the rest")
    if isinstance(error, duckdb.BinderException | duckdb.CatalogException | duckdb.ParserException):
        return SqlError(f"{said}; there are: {views.described()}")
    return SqlError(said)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
