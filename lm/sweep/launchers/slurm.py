"""Workers as jobs of a Slurm cluster, through submitit."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm.config import ConfigError, config
from lm.errors import UserError
from lm.sweep.launchers.base import Launcher, State
from lm.sweep.launchers.work import Work
from lm.train.signals import STOPPED

REQUEUES = 1000  # time limits that a job may run into
STATES: dict[str, State] = {
    "PENDING": "queued",
    "CONFIGURING": "queued",
    "REQUEUED": "queued",
    "REQUEUE_HOLD": "queued",
    "SUSPENDED": "queued",
    "PREEMPTED": "queued",
    "RUNNING": "running",
    "COMPLETING": "running",
    "READY": "running",
    "UNKNOWN": "unknown",
}


@config
class Slurm(Launcher):
    """An array of jobs, one a worker, at most `at_once` of them at a time.

    minutes: the time limit; `warning` seconds before it ends, and when it is preempted, a worker saves, and the job is
    queued again. nodes above 1: each worker is one process a node, joined by `jax.distributed`. cpus, gpus, memory_gb:
    of a node. setup: shell lines that go before, e.g. "module load cuda". more: other options of sbatch, e.g.
    {"qos": "low"}.
    """

    partition: str | None = None
    minutes: int = 60
    nodes: int = 1
    cpus: int | None = None
    gpus: int = 0
    memory_gb: int | None = None
    at_once: int | None = None
    warning: int = 90
    setup: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("minutes", "nodes", "warning"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Slurm({name}={getattr(self, name)}) must be at least 1")

    def ready(self) -> str | None:
        try:
            done = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, timeout=30)
        except FileNotFoundError:
            return "there is no Slurm here: sinfo isn't installed"
        except subprocess.TimeoutExpired:
            return "Slurm doesn't answer: sinfo took longer than 30 s"
        return f"Slurm doesn't answer: {done.stderr.strip()}" if done.returncode else None

    def submit(self, work: Work) -> list[str]:
        executor = self._executor(work.manifest.absolute().parent / "slurm", work.workers)
        with executor.batch():
            jobs = [executor.submit(Supervised(work.worker(number, self.nodes))) for number in work.numbers]
        return [job.job_id for job in jobs]

    def _executor(self, folder: Path, workers: int) -> Any:
        submitit = _submitit()
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=REQUEUES, python=sys.executable)
        executor.update_parameters(**self.parameters(folder.parent.name, workers))
        return executor

    def parameters(self, name: str, workers: int) -> dict[str, Any]:
        """What submitit is asked for, in its words."""
        options = {
            "job_name": f"lm-{name}",
            "time": self.minutes,
            "nodes": self.nodes,
            "ntasks_per_node": 1,
            "array_parallelism": self.at_once or workers,
            "signal_delay_s": self.warning,
            "additional_parameters": {"requeue": True, "open_mode": "append", **self.more},
            "partition": self.partition,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem": f"{self.memory_gb}GB" if self.memory_gb else None,
            "setup": list(self.setup) or None,
        }
        return {name: value for name, value in options.items() if value is not None}

    def poll(self, jobs: Sequence[str]) -> dict[str, State]:
        """By squeue, which a cluster without accounting has too; a job that it no longer knows has ended."""
        command = ["squeue", "--noheader", "--array", "--me", "--states=all", "--format=%i %T"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return dict.fromkeys(jobs, "unknown")
        if done.returncode:
            return dict.fromkeys(jobs, "unknown")
        found = dict(line.split() for line in done.stdout.splitlines() if line.strip())
        return {job: STATES.get(found.get(job, "ended"), "ended") for job in jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        waiting = [job for job, state in self.poll(jobs).items() if state != "ended"]
        if waiting:
            done = subprocess.run(["scancel", *waiting], capture_output=True, text=True, timeout=60)
            if done.returncode:
                raise UserError(f"scancel: {done.stderr.strip()}")


@dataclass
class Supervised:
    """What a job does: a worker in a process of its own, so that a signal reaches the worker and not the one who
    must queue the job again."""

    command: tuple[str, ...]

    def __call__(self) -> None:
        # Slurm sends the signal that warns this process to the worker as well, which must not die of it
        warned = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self.child = subprocess.Popen([sys.executable, "-m", *self.command])
        signal.signal(signal.SIGUSR2, warned)
        code = self._ended()
        while code == STOPPED:  # Slurm is about to end this job; one that ends by itself wouldn't be queued again
            signal.pause()
        if code:
            raise RuntimeError(f"the worker ended with code {code}")

    def checkpoint(self) -> Any:
        """Called before the time limit: the worker saves, and the job is queued again."""
        self.child.send_signal(signal.SIGTERM)
        self._ended()
        return _submitit().helpers.DelayedSubmission(Supervised(self.command))

    def _ended(self) -> int:
        """The worker's exit code, by asking again and again: `checkpoint` comes as a signal in the middle of this,
        and of two calls of `wait`, one inside the other, neither returns."""
        while self.child.poll() is None:
            time.sleep(0.2)
        return self.child.returncode

    def __getstate__(self) -> dict[str, Any]:
        return {"command": self.command}


def _submitit() -> Any:
    try:
        import submitit
        import submitit.helpers
    except ImportError:
        raise UserError("submitit isn't installed; install it with: pip install submitit") from None
    return submitit
