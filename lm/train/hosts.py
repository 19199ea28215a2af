"""Several processes that train a run together: how they find one another, and how they agree."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def join(distributed: bool = False) -> None:
    """Joins the processes of this worker, before anything asks JAX for its devices.

    By JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID where they are set; else, with `distributed`, as
    jax.distributed finds them (Slurm, Open MPI, TPU pods). Does nothing for a single process.
    """
    if int(os.environ.get("JAX_NUM_PROCESSES", "1")) > 1:
        jax.distributed.initialize(
            os.environ["JAX_COORDINATOR_ADDRESS"],
            int(os.environ["JAX_NUM_PROCESSES"]),
            int(os.environ["JAX_PROCESS_ID"]),
        )
    elif distributed:
        jax.distributed.initialize()


def several() -> bool:
    """Whether a run is trained by more than one process."""
    return jax.process_count() > 1


def devices() -> int:
    """Devices of all processes."""
    return jax.device_count()


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def any_of(mine: bool) -> bool:
    """True on every process if it is on one. Every process must ask at the same place."""
    if not several():
        return mine
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(mine))))


def from_first(value: int) -> int:
    """The first process's number, on every process."""
    if not several():
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.asarray(value, np.int32)))


def on_first(act: Callable[[], Any]) -> Any:
    """Does something on the first process only; an error of it is raised on all, so that none waits for the others."""
    error: Exception | None = None
    found = None
    if first():
        try:
            found = act()
        except Exception as caught:
            error = caught
    if several() and any_of(error is not None) and error is None:
        raise agree_on(PeerFailed("the first process of this run couldn't go on; its log says why"))
    if error is not None:
        raise agree_on(error)
    return found


def agree_on(error: Exception) -> Exception:
    """Marks an error that every process of the run knows of."""
    error.agreed = True  # type: ignore[attr-defined]
    return error


def end_unless_agreed(error: Exception) -> None:
    """Ends this process if it alone knows of an error: the others wait for it, and jax.distributed then ends them.
    Does nothing for a single process."""
    if several() and not getattr(error, "agreed", False):
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)


class PeerFailed(RuntimeError):
    """Another process of the same run had an error."""
