"""What a launcher is given to place: some workers of one sweep.

A worker is the command `lm sweep worker MANIFEST`. It takes runs of the manifest from the shared results folder, one
after another, until none is left. Any number of workers may run, and any may be killed at any time: what it had in
hand is taken up by another. So all that a launcher has to do is to start workers and to start them again.

Between a launcher and a worker there are two agreements.

- A worker that was asked to stop (SIGTERM) before the manifest was done saves and exits with `STOPPED` (of
  `lm.train.signals`). Only that tells an engine that the worker has to come back: most take 0 for done, and any other
  number for a fault.
- A worker on several hosts is one process on each. They find one another by the variables `COORDINATOR`, `PROCESSES`
  and `PROCESS`, which are set where there is more than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lm.errors import UserError

COORDINATOR = "JAX_COORDINATOR_ADDRESS"  # host:port of process 0; JAX itself reads it
PROCESSES = "JAX_NUM_PROCESSES"
PROCESS = "JAX_PROCESS_ID"
PORT = 8482  # where JAX's own detection of TPU clusters puts the coordinator; libtpu takes 8471 to 8476


class LaunchError(UserError):
    """Work that can't be placed as asked."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Workers of one sweep. `manifest` is a path as the workers see it; `options` follow it on their command line.
    only: the numbers of those that are to be started, where the others are there already."""

    name: str
    manifest: Path
    workers: int = 1
    options: tuple[str, ...] = ()
    only: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise LaunchError(f"a sweep needs at least one worker, got workers={self.workers}")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The workers to start, by number."""
        return tuple(range(self.workers)) if self.only is None else self.only

    @property
    def command(self) -> tuple[str, ...]:
        """The command line of one worker, who knows nothing of the others."""
        return ("lm", "sweep", "worker", str(self.manifest), *self.options)

    def worker(self, number: int, hosts: int = 1) -> tuple[str, ...]:
        """The command line of worker `number`, from 0, of these workers, on each of its hosts."""
        place = ("--share", str(self.workers), "--first", str(number)) if self.workers > 1 else ()
        return (*self.command, *place, *(("--distributed",) if hosts > 1 else ()))
