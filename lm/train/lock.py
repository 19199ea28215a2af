"""One process a run folder. The kernel holds the lock, so it is gone the moment its holder is, killed or not."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

from lm.errors import UserError


class RunLocked(UserError):
    """Another process works in this run folder."""


class RunLock:
    """Holds `folder` from `with RunLock(folder):` on. Raises RunLocked with the holder's pid and host.

    Advisory `flock` on the file `lock`, which stays behind and means nothing by itself. On network file systems it
    needs a server that passes locks on (NFS 4, Lustre with flock).
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "lock"
        self._file = -1

    def __enter__(self) -> RunLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(f"can't open the run folder {self.path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = self._holder()
            self._close()
            if not isinstance(error, BlockingIOError):
                raise UserError(f"{self.path.parent} can't be locked: {error.strerror}") from error
            raise RunLocked(
                f"{self.path.parent} is in use by {holder}; wait for it or stop it, two runs can't share a folder"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)  # closing alone leaves it with a forked child that has the file open
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _holder(self) -> str:
        try:
            found = json.loads(os.pread(self._file, 4096, 0))
            return f"process {found['pid']} on {found['host']}"
        except (OSError, ValueError, KeyError):
            return "another process"
