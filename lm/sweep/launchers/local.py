"""Workers as processes of this machine, each with cores or a GPU of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lm.config import config
from lm.sweep.launchers.base import Launcher, State
from lm.sweep.launchers.work import Work


@config
class Local(Launcher):
    """Processes that live on when the terminal closes. GPUs are dealt out one after another; without any, the cores
    are divided equally. What they say is in logs/ beside the manifest."""

    def submit(self, work: Work) -> list[str]:
        logs = work.manifest.parent / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        return [self._start(work, number, logs) for number in work.numbers]

    def _start(self, work: Work, number: int, logs: Path) -> str:
        command = [sys.executable, "-m", *work.worker(number)]
        gpus = visible_gpus()
        environment = dict(os.environ)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        else:
            command += ["--cores", ",".join(map(str, cores(number, work.workers)))]
        with (logs / f"worker-{number}.log").open("ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        _children[process.pid] = process
        return f"{process.pid}:{_born(process.pid)}"

    def poll(self, jobs: Sequence[str]) -> dict[str, State]:
        return {job: "running" if _pid(job) else "ended" for job in jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        for job in jobs:
            pid = _pid(job)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)


_children: dict[int, subprocess.Popen[bytes]] = {}  # those this process started: they are waited for, not left undead


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, by the names CUDA takes."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    return [str(i) for i, _ in enumerate(sorted(Path("/dev").glob("nvidia[0-9]*")))]


def cores(index: int, workers: int) -> list[int]:
    """The cores of worker number `index`: an equal share, or one of them where there are more workers than cores."""
    mine = sorted(os.sched_getaffinity(0))
    if workers >= len(mine):
        return [mine[index % len(mine)]]
    return mine[index * len(mine) // workers : (index + 1) * len(mine) // workers]


def wait(launcher: Launcher, jobs: Sequence[str], seconds: float = 60.0) -> bool:
    """Waits until jobs have ended; False if some haven't in that time."""
    deadline = time.monotonic() + seconds
    while any(state in ("queued", "running") for state in launcher.poll(jobs).values()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _pid(job: str) -> int | None:
    """The process of a job if it still runs. A number given to another process since isn't it: that began later."""
    pid, _, born = job.partition(":")
    child = _children.get(int(pid))
    if child is not None and child.poll() is not None:
        return None
    return int(pid) if born and _born(int(pid)) == born else None


def _born(pid: int) -> str:
    """When a process began, in the kernel's ticks since the machine did; "" if there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
