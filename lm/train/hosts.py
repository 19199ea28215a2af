"""Several processes that train a run together: how they find one another, and how they agree.

They agree over the service that JAX starts in the first process, not over the devices: a device that computes isn't
waited for, and a process that doesn't come is named.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import re
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from lm.errors import UserError
from lm.files import first_line
from lm.train import watch_peers
from lm.train.watch_peers import Watch

log = logging.getLogger("lm.train")

COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
# environment variable -> seconds: to find one another in, to be silent in, and to wait for one another in
TIMEOUTS = {"LM_JOIN_TIMEOUT": 300.0, "LM_PEER_TIMEOUT": 60.0, "LM_AGREE_TIMEOUT": 1800.0}


class JoinError(UserError):
    """The processes of a run can't find one another."""


class PeerFailed(UserError):
    """Another process of the same run had an error: which, and its first line."""

    exit_code = watch_peers.LOST


def join(distributed: bool = False) -> None:
    """Joins the processes of this worker, before anything asks JAX for its devices.

    By JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID where they are set; else, with `distributed`, as
    jax.distributed finds them (Slurm, Open MPI, TPU pods, Kubernetes). Does nothing for a single process, or if they
    have joined before.

    Raises JoinError where they are incomplete or nothing is found. A process that hasn't found the others within
    LM_JOIN_TIMEOUT seconds says so in one line and ends with code 1: JAX itself would abort.
    """
    where = _by_hand(distributed)
    if jax.distributed.is_initialized() or (where is None and not distributed):
        return
    seconds = timeout("LM_JOIN_TIMEOUT")
    with contextlib.suppress(AttributeError):  # JAX would catch SIGTERM for good, and nobody asks it
        jax.config.update("jax_enable_preemption_service", False)
    late = threading.Timer(seconds, _give_up, [seconds])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **(where or {"local_device_ids": _local_devices()}),
            initialization_timeout=int(seconds) + 60,  # it is `late` who speaks
            heartbeat_timeout_seconds=max(int(2 * timeout("LM_PEER_TIMEOUT")), 10),
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise JoinError(
            f"jax.distributed found no processes to train with ({first_line(error)}); start this by srun, mpirun or on "
            f"a TPU pod, or set {COORDINATOR}=HOST:PORT, {COUNT} and {INDEX}"
        ) from error
    finally:
        late.cancel()
    if several():
        _agreement().watch_over()


def timeout(name: str) -> float:
    """Seconds of one of `TIMEOUTS`, from the environment where it is set."""
    text = os.environ.get(name, "")
    try:
        seconds = float(text) if text else TIMEOUTS[name]
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise JoinError(f"{name}={text} must be a number of seconds above 0")
    return seconds


def _by_hand(distributed: bool) -> dict[str, Any] | None:
    """What the environment says, as jax.distributed takes it; None if it says nothing of several processes. With
    `distributed` it may give the coordinator's address alone, as JAX would."""
    count, address, index = (os.environ.get(name, "") for name in (COUNT, COORDINATOR, INDEX))
    if not count and (index or (address and not distributed)):
        given = INDEX if index else COORDINATOR
        raise JoinError(f"{given} is set and {COUNT} isn't: set that too, or this process would train alone")
    if count in ("", "1"):
        return None
    if not re.fullmatch(r".+:\d+", address):
        raise JoinError(f"{COUNT}={count} needs {COORDINATOR}=HOST:PORT of process 0, got '{address}'")
    if not (count.isdigit() and index.isdigit() and int(index) < int(count)):
        raise JoinError(f"{COUNT}={count} needs {INDEX} from 0 to one below it, another for each, got '{index}'")
    return {
        "coordinator_address": address,
        "num_processes": int(count),
        "process_id": int(index),
        "cluster_detection_method": "deactivate",
    }


def _local_devices() -> list[int] | None:
    """The GPUs of a process that is the only one of its job on this machine: all. JAX gives every process of Slurm and
    Open MPI one, by its number on the machine, which is right for one process a GPU; None leaves it at that."""
    alone = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
    if not (alone or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"):
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = sorted(Path("/dev").glob("nvidia[0-9]*")) if visible is None else [one for one in visible.split(",") if one]
    return list(range(len(gpus))) or None


def _give_up(seconds: float) -> None:
    found = _jax_state()
    address, own = found.coordinator_address, f"process {found.process_id}"
    host, _, port = (address or "").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        why = (
            f"{own} has the coordinator at {address}, but not all processes came within {seconds:.0f} s; "
            "start the missing ones, or set LM_JOIN_TIMEOUT to more seconds"
        )
    except (OSError, ValueError) as error:
        why = (
            f"{own} can't reach the coordinator (process 0) at {address} for {seconds:.0f} s: {error}; "
            f"start process 0 there, open its port, or correct {COORDINATOR}"
        )
    print(f"lm: {why}", file=sys.stderr, flush=True)
    os._exit(1)


def several() -> bool:
    """Whether a run is trained by more than one process."""
    return jax.process_count() > 1


def devices() -> int:
    """Devices of all processes."""
    return jax.device_count()


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def index() -> int:
    """The number of this process, from 0."""
    return jax.process_index()


def any_of(mine: bool) -> bool:
    """True on every process if it is on one. Every process must ask at the same place."""
    return bool(_agreement().told("yes" if mine else "")) if several() else mine


def from_first(value: int) -> int:
    """The first process's number, on every process."""
    return int(_agreement().from_first(str(int(value)))) if several() else value


def gather(value: float) -> list[float]:
    """Every process's number, by process, on every process."""
    return [float(text) for text in _agreement().gather(repr(value))] if several() else [value]


def waited() -> float:
    """Seconds this process has waited for others so far, at places where they agree."""
    return _agreement().waited if several() else 0.0


def name(index: int) -> str:
    """What a process is called in messages."""
    return _agreement().names[index]


def on_first(act: Callable[[], Any]) -> Any:
    """Does something on the first process only; an error of it is raised on all, so that none waits for the others."""
    error: Exception | None = None
    found = None
    if first():
        try:
            found = act()
        except Exception as caught:
            error = caught
    if (error := shared(error)) is not None:
        raise error
    return found


def shared(mine: Exception | None) -> Exception | None:
    """The error with which this process goes on from here: its own; else a PeerFailed if another came with one; else
    None. Every process must ask at the same place, and those with an error that is agreed on don't ask again.

    The others may wait for this process inside a collective: if they don't come within LM_PEER_TIMEOUT, it ends.
    """
    if not several() or (mine is not None and agreed(mine)):
        return mine
    late = threading.Timer(timeout("LM_PEER_TIMEOUT"), end_unless_agreed, [mine])
    late.daemon = True
    if mine is not None:
        late.start()
    try:
        reasons = _agreement().told("" if mine is None else first_line(mine) or type(mine).__name__)
    finally:
        late.cancel()
    if reasons and mine is None:
        index, reason = min(reasons.items())
        mine = PeerFailed(f"{name(index)} couldn't go on: {reason}")
    return None if mine is None else agree_on(mine)


def agree_on(error: Exception) -> Exception:
    """Marks an error that every process of the run knows of."""
    error.agreed = True  # type: ignore[attr-defined]
    return error


def agreed(error: BaseException) -> bool:
    """Whether every process of the run knows of an error; always, for a single process."""
    return not several() or getattr(error, "agreed", False)


def end_if_lost(error: Exception) -> None:
    """Ends this process if its error is another's loss: a collective that breaks says nothing of who is gone, and the
    watch over the processes knows it in a moment. Returns if nobody is lost."""
    if agreed(error):
        return
    cause = error.__cause__ if isinstance(error, UserError) else error
    if isinstance(cause, RuntimeError | ValueError) and "RESOURCE_EXHAUSTED" not in str(cause):
        time.sleep(1.5 * timeout("LM_PEER_TIMEOUT") if _broken(cause) else 1.0)


def end_unless_agreed(error: Exception) -> None:
    """Ends this process if it alone knows of an error; the others are told why, and end with code LOST. Does nothing
    for a single process."""
    if agreed(error):
        return
    if isinstance(error, UserError):
        print(f"lm: {' '.join(str(error).split())}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    _agreement().fail(first_line(error))
    os._exit(getattr(error, "exit_code", 1))


def _broken(error: Exception) -> bool:
    """Whether an error may be that of a collective whose other side is gone."""
    words = ("gloo", "nccl", "unavailable", "connection", "socket", "deadline", "aborted", "peer", "remote")
    return isinstance(error, jax.errors.JaxRuntimeError) or any(word in str(error).lower() for word in words)


class _Agreement:
    """Places where all processes of the run meet, numbered in the order in which each comes to them."""

    def __init__(self) -> None:
        found = _jax_state()
        self.client, self.address = found.client, found.coordinator_address
        self.index, self.turn, self.waited = jax.process_index(), 0, 0.0
        self.watch: Watch | None = None
        own = f"process {self.index} of {jax.process_count()} ({socket.gethostname()}, pid {os.getpid()})"
        self.names = [own] * jax.process_count()
        self.names = self.gather(own)

    def watch_over(self) -> None:
        """Begins the watch over the other processes."""
        seconds = timeout("LM_PEER_TIMEOUT")
        self.watch = Watch(self.names, self.index, seconds)
        if self.index == 0:
            token = secrets.token_hex(8)
            self.client.key_value_set("lm/watch", f"{self.watch.listen(token)} {token}")
        else:
            port, token = self.client.blocking_key_value_get("lm/watch", int(1000 * seconds)).split()
            try:
                self.watch.connect(self.address.rpartition(":")[0].strip("[]"), int(port), token)
            except OSError as error:
                log.warning(
                    "%s can't connect to port %s of process 0 (%s): a lost process will be noticed only by JAX, after "
                    "%d s",
                    *(self.names[self.index], port, first_line(error), 2 * seconds),
                )
        atexit.register(self.watch.leave)

    def told(self, mine: str) -> dict[int, str]:
        """What those processes tell that have something to tell, by process."""
        where = f"lm/any/{self.turn}/"
        if mine:
            self.client.key_value_set(f"{where}{self.index}", mine)
        self._meet()
        return {int(key.rpartition("/")[2]): text for key, text in self.client.key_value_dir_get(where)}

    def from_first(self, value: str) -> str:
        where = f"lm/first/{self.turn}"
        if self.index == 0:
            self.client.key_value_set(where, value)
        self._meet()
        return self.client.blocking_key_value_get(where, int(1000 * timeout("LM_AGREE_TIMEOUT")))

    def gather(self, value: str) -> list[str]:
        where = f"lm/all/{self.turn}"
        self.client.key_value_set(f"{where}/{self.index:06d}", value)
        self._meet()
        found = [text for _, text in sorted(self.client.key_value_dir_get(where))]
        self._meet()
        self.client.key_value_delete(f"{where}/{self.index:06d}")
        return found

    def _meet(self) -> None:
        """Returns when every process has come here."""
        self.turn += 1
        began, seconds = time.monotonic(), timeout("LM_AGREE_TIMEOUT")
        if self.watch is not None:
            self.watch.waiting = began
        try:
            self.client.wait_at_barrier("lm", int(1000 * seconds))
        except RuntimeError as error:
            self._missed(error, seconds)
        finally:
            if self.watch is not None:
                self.watch.waiting = None
        self.waited += time.monotonic() - began

    def _missed(self, error: Exception, seconds: float) -> None:
        """Ends this process: others didn't come."""
        found = re.search(r"timed out task names:\s*((?:\d+\s+)+)", str(error))
        if found is None:
            end_if_lost(error)
            raise error
        missing = " and ".join(self.names[int(number)] for number in found.group(1).split())
        watch_peers.end(
            f"{missing} didn't come where all processes meet for {seconds:.0f} s; its log, and stacks-*.txt in the "
            "run's folder, may say why; LM_AGREE_TIMEOUT sets how long is waited"
        )

    def fail(self, reason: str) -> None:
        if self.watch is not None:
            self.watch.fail(reason)


@functools.lru_cache(maxsize=1)
def _agreement() -> _Agreement:
    return _Agreement()


def _jax_state() -> Any:
    """JAX's connection between processes. It has no public name; Orbax takes it from here, too."""
    from jax._src import distributed

    return distributed.global_state
