"""A run's rows: one JSON object a line, appended as they come, never rewritten but on resume.

A row is whole once `append` returns: it is written in one call and survives the death of the process. A line cut
short by a crash or a full disk is dropped when the file is next opened. A number that isn't finite has no JSON:
it is stored as null under its name and named in the row's "nonfinite", for instance {"loss": null, "nonfinite":
{"loss": "nan"}}; `read` gives the float back. What wasn't measured is null, or not in the row.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.errors import UserError
from lm.files import reason, write_atomically

NONFINITE = "nonfinite"


class RowsError(UserError):
    """Rows that can't be written or read."""


class Rows:
    """The writer of one file of rows. One process at a time (the run folder's lock sees to that)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            _wait_for_others(self._file)
            os.ftruncate(self._file, whole(self.path.read_bytes()))
        except OSError as error:
            raise RowsError(f"can't write rows to {self.path}: {reason(error)}") from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes a row (strings, bools, numbers, None, lists and dicts of them; scalars of NumPy and JAX too).

        Raises RowsError if it can't be written whole; the file is then as it was before.
        """
        line = (encode(row) + "\n").encode()
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, end)
            raise RowsError(f"can't write a row to {self.path}: {reason(error)}; its {end} bytes are safe") from error

    def truncate_after(self, step: int) -> None:
        """Removes the rows whose "step" is above `step`: those a resumed run will write again."""
        rows = self.path.read_bytes().splitlines(keepends=True)
        kept = [line for line in rows if json.loads(line).get("step", step) <= step]
        if len(kept) == len(rows):
            return
        write_atomically(self.path, b"".join(kept))
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    def sync(self) -> None:
        """Returns when the rows would survive a power cut, too. Called with each checkpoint."""
        os.fsync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait_for_others(file: int) -> None:
    """Until no other process is about to write to the file (several note their jobs and speeds in one), or 5 s."""
    for _ in range(100):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:
            return  # a file system without locks


def read(path: str | Path) -> list[dict[str, Any]]:
    """All whole rows of a file, also while it is being written; [] if it doesn't exist yet."""
    path = Path(path)
    if not path.exists():
        return []
    data = path.read_bytes()
    rows = []
    for number, line in enumerate(data[: whole(data)].splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RowsError(f"{path} line {number} isn't JSON ({error}); remove that line to read the rest") from None
        row.update({name: float(text) for name, text in row.pop(NONFINITE, {}).items()})
        rows.append(row)
    return rows


def whole(data: bytes) -> int:
    """How many leading bytes are whole rows. Only the last line can be torn: it lacks its end, or isn't JSON."""
    end = data.rfind(b"\n") + 1
    start = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
    try:
        if start < end:
            json.loads(data[start:end])
    except ValueError:
        return start
    return end


def encode(row: Mapping[str, Any]) -> str:
    """A row as its line, without the line's end."""
    plain = {str(name): _plain(value) for name, value in row.items()}
    bad = {name: str(v) for name, v in plain.items() if isinstance(v, float) and not math.isfinite(v)}
    if bad:
        plain = {**plain, **dict.fromkeys(bad), NONFINITE: bad}
    try:
        return json.dumps(plain, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise RowsError(f"a row can't hold {row!r}: {error}") from None


def _plain(value: Any) -> Any:
    """Python's own number for a scalar of NumPy or JAX."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
