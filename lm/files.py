"""Files that are written whole or not at all, and an operating system's errors in words."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from pathlib import Path

from lm.errors import UserError


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file (text as UTF-8) that nobody ever sees half-written. Its folder must exist.

    Raises UserError where it can't; what was there before is then as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"can't write {path}: {reason(error)}; what was there before is whole") from error
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """An error as a person says it: full disk, no permission, or its first line."""
    number = error.errno if isinstance(error, OSError) else None
    found = re.search(r"os_error_code='(\d+)'", str(error))  # as TensorStore says it
    number = int(found.group(1)) if found else number
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and start again"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission to write there"
    return os.strerror(number) if number else first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type's name where it has none."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
