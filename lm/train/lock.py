"""One process a run folder. On one machine the kernel holds the lock, so it is gone the moment its holder is, killed or
not; between machines a lease does (`lm.train.lease`)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lm.errors import UserError
from lm.train.lease import HOST, MACHINE, Lease, LeaseLost, RunLocked, held_elsewhere

__all__ = ["Lease", "LeaseLost", "RunLocked", "held", "lock"]

# A file of each machine's own: on a network file system the kernel of one would hold it against all the others, as
# long as a process that stands still has it.
NAME = f"lock.{MACHINE}"


@contextlib.contextmanager
def lock(folder: str | Path) -> Iterator[Lease]:
    """Holds `folder` for the time of a `with`. Raises RunLocked with the holder's pid and host.

    Advisory `flock` on a file of this machine's, which stays behind and means nothing by itself, and a lease for file
    systems that other machines share. What is given is the lease: `check()` it before writing.
    """
    path = Path(folder) / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"can't open the run folder {path.parent}: {error.strerror}") from error
    try:
        _take(file, path.parent)
        lease = Lease(path.parent)
        try:
            lease.take(others_here_are_dead=True)
            try:
                yield lease
            finally:
                lease.release()
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing alone leaves it with a forked child that has the file open
    finally:
        os.close(file)


def held(folder: str | Path) -> bool:
    """True while a process holds `folder`. Changes nothing."""
    try:
        file = os.open(Path(folder) / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # nobody of this machine has ever had it
        return held_elsewhere(Path(folder))
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return held_elsewhere(Path(folder))


def _take(file: int, folder: Path) -> None:
    try:
        for _ in range(20):  # one who only looks whether it is held holds it for a moment
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.01)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"{folder} is in use by {_holder(file)}; wait for it or stop it, two runs can't share a folder"
        raise RunLocked(message) from None
    except OSError as error:
        raise UserError(f"{folder} can't be locked: {error.strerror}") from error
    with contextlib.suppress(OSError):  # a full disk: held all the same, if by nobody in particular
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({"pid": os.getpid(), "host": HOST}).encode(), 0)


def _holder(file: int) -> str:
    try:
        found = json.loads(os.pread(file, 4096, 0))
        return f"process {found['pid']} on {found['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
