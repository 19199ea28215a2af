"""A run folder on a shared file system belongs to one process of all machines: the one that keeps its lease alive.

The lease is a small file that its holder touches every `BEAT` seconds. A file nobody touches any more is taken over.
No clock of any machine is compared with another's: a lease looks old by the file server's own times, and is taken
only after it has been watched, by the watcher's own monotonic clock, and not been touched once. A holder that was
stopped for longer than that finds its lease gone when it asks, which it does before it writes.

Taking over is a folder made in the dead lease's name, which the file system gives to one process alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from lm.errors import UserError

BEAT = 10.0  # seconds between touches
EXPIRY = 60.0  # seconds after which a holder no longer trusts its own lease, and others begin to watch it
WATCH = 2.5 * BEAT  # seconds without a touch, seen by the watcher, that make a lease dead

HOST = socket.gethostname()


def _machine() -> str:
    """What only this machine has, since it was started: names of hosts may be equal, as in containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{HOST}-{uuid.getnode():x}"


MACHINE = _machine()


class RunLocked(UserError):
    """Another process works in this run folder."""


class LeaseLost(UserError):
    """Another process took the folder over while this one was stopped."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lease."""

    token: str
    host: str
    machine: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """The lease of one folder. `take` it, `check` before writing, `release` it at the end."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lease"
        self.owner = Owner(uuid.uuid4().hex, HOST, MACHINE, os.getpid())
        self._sure = 0.0  # when it was last known to be ours

    def take(self, others_here_are_dead: bool = False) -> None:
        """Takes a lease that is free or dead. Raises RunLocked with its holder's pid and host.

        others_here_are_dead: nobody on this machine holds it, as its kernel's lock has shown.
        """
        if not self._create():
            found = _read(self.path)
            if found is None or not ((others_here_are_dead and found.machine == MACHINE) or _dead(self.path, found)):
                raise RunLocked(
                    f"{self.path.parent} is in use by {found or 'another process'}; wait for it or stop it, "
                    "two runs can't share a folder"
                )
            self._take_over(found)
        self._sure = now()
        _heart.add(self)

    def check(self) -> None:
        """Raises LeaseLost if the folder has been taken over. Free of cost while the heart beats."""
        if now() - self._sure > EXPIRY / 2:
            self.beat()

    def beat(self) -> None:
        """Touches the lease. Raises LeaseLost if it is another's by now, OSError if that can't be known."""
        asked = now()
        found = _read(self.path)
        if found is None or found.token != self.owner.token:
            self._sure = -math.inf
            raise LeaseLost(
                f"{self.path.parent} was taken over by {found or 'another process'} while this one stood still; "
                "what it has written is continued there"
            )
        os.utime(self.path)
        self._sure = asked  # not a moment later: this process may have stood still in between

    def release(self) -> None:
        _heart.remove(self)
        with contextlib.suppress(OSError):
            found = _read(self.path)
            if found is not None and found.token == self.owner.token:
                self.path.unlink()

    def _create(self) -> bool:
        """Makes the lease file, whole, unless there is one."""
        whole = self._written()
        try:
            os.link(whole, self.path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise UserError(
                    f"the file system of {self.path.parent} has no hard links, so nothing can say who holds a run; "
                    "use one that has, such as a local disk, NFS or Lustre"
                ) from error
            raise UserError(f"can't write to the run folder {self.path.parent}: {error.strerror}") from error
        finally:
            whole.unlink(missing_ok=True)
        return True

    def _take_over(self, dead: Owner) -> None:
        """Puts this lease in a dead one's place. Raises RunLocked if another process was quicker."""
        quicker = RunLocked(f"{self.path.parent} is being taken over by another process")
        for attempt in range(1000):  # a claim whose maker died in the middle counts as dead as the lease
            claim = self.path.with_name(f"lease.{dead.token}.{attempt}")
            try:
                claim.mkdir()
                break
            except FileExistsError:
                if _age(claim) < EXPIRY:
                    raise quicker from None
        else:
            raise quicker
        began, found = now(), _read(self.path)
        if found is None or found.token != dead.token:
            claim.rmdir()
            raise quicker
        whole = self._written()
        if now() - began > EXPIRY / 2:  # this process stood still, and its claim may have been taken for dead
            whole.unlink(missing_ok=True)
            raise quicker
        os.replace(whole, self.path)
        for old in self.path.parent.glob(f"lease.{dead.token}.*"):
            with contextlib.suppress(OSError):
                old.rmdir()
        self.beat()

    def _written(self) -> Path:
        """The lease under a name of its own."""
        whole = self.path.with_name(f".lease.{self.owner.token}")
        try:
            whole.write_text(json.dumps(vars(self.owner)))
        except OSError as error:
            with contextlib.suppress(OSError):
                whole.unlink(missing_ok=True)
            raise UserError(f"can't write to the run folder {self.path.parent}: {error.strerror}") from error
        return whole


def held_elsewhere(folder: Path) -> bool:
    """True if a process of another machine seems to hold `folder`. Cheap, for display: it isn't watched."""
    found = _read(folder / "lease")
    if found is None or found.machine == MACHINE:
        return False
    with contextlib.suppress(OSError):
        return time.time() - (folder / "lease").stat().st_mtime < EXPIRY
    return False


def now() -> float:
    """Seconds that go on while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Owner("", "an unknown machine", "", 0)


def _touched(path: Path) -> float:
    """When a file was touched last, by its server's clock. Opened first: that is when a network client asks anew."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(file).st_mtime
    finally:
        os.close(file)


def _age(path: Path) -> float:
    """How long ago a file or folder was touched, in the file server's time."""
    probe = path.with_name(f".probe.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return _touched(probe) - _touched(path)
    except FileNotFoundError:
        return 0.0  # it is gone: ask again
    except OSError as error:
        raise UserError(f"can't write to the run folder {path.parent}: {error.strerror}") from error
    finally:
        probe.unlink(missing_ok=True)


_seen: dict[Path, tuple[str, float, float]] = {}  # lease -> its token, its time, and since when it has been so


def _dead(path: Path, owner: Owner) -> bool:
    """True if a lease is old and has been watched for WATCH seconds without a touch. Waits for what is missing."""
    if _age(path) < EXPIRY:
        _seen.pop(path, None)
        return False
    while True:
        try:
            touched = _touched(path)
        except FileNotFoundError:
            return False
        token, before, since = _seen.get(path, ("", 0.0, 0.0))
        if (token, before) != (owner.token, touched):
            if token == owner.token:
                del _seen[path]
                return False  # it was touched: its holder lives
            _seen[path] = (owner.token, touched, now())
            continue
        if now() - since >= WATCH:
            del _seen[path]
            return True
        time.sleep(min(BEAT / 4, WATCH))


class _Heart:
    """One thread that touches every lease of this process."""

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        with self._changed:
            self._leases.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="lm-leases", daemon=True)
                self._thread.start()

    def remove(self, lease: Lease) -> None:
        with self._changed:
            self._leases.discard(lease)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._changed:
                leases = list(self._leases)
            for lease in leases:
                # lost, or a server that doesn't answer: `check` says so to the thread that is about to write
                with contextlib.suppress(OSError, LeaseLost):
                    lease.beat()


_heart = _Heart()
