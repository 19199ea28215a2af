"""What starts workers somewhere: submit, poll, cancel."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lm.config import config, from_dict, to_dict
from lm.sweep.launchers.work import Work
from lm.train.rows import Rows, read

State = Literal["queued", "running", "ended", "unknown"]


@config
class Launcher:
    """A place for workers. A worker that ends, however it ends, takes nothing along: another goes on with its runs."""

    def submit(self, work: Work) -> list[str]:
        """Starts the workers and returns their jobs' names at once."""
        raise NotImplementedError

    def poll(self, jobs: Sequence[str]) -> dict[str, State]:
        """What each job is doing."""
        raise NotImplementedError

    def cancel(self, jobs: Sequence[str]) -> None:
        """Asks jobs to end; what they train is saved first, where the place gives them time."""
        raise NotImplementedError

    def ready(self) -> str | None:
        """Why nothing can be submitted here, in one line; None if all is well."""
        return None


def submit(launcher: Launcher, work: Work) -> list[str]:
    """Starts the workers and notes their jobs beside the manifest, in jobs.jsonl."""
    jobs = launcher.submit(work)
    with Rows(book(work)) as file:
        for job in jobs:
            file.append({"job": job, "launcher": json.dumps(to_dict(launcher)), "time": time.time()})
    return jobs


def submitted(folder: Path, by: Launcher | None = None) -> list[tuple[Launcher, list[str]]]:
    """The jobs that were ever started for the experiment in `folder`, by launcher; or those of one kind of launcher."""
    found: dict[str, list[str]] = {}
    for row in read(folder / "jobs.jsonl"):
        if by is None or json.loads(row["launcher"])["type"] == to_dict(by)["type"]:
            found.setdefault(row["launcher"], []).append(row["job"])
    return [(from_dict(json.loads(text)), jobs) for text, jobs in found.items()]


def states(folder: Path) -> dict[str, State]:
    """What every job of the experiment in `folder` is doing."""
    found: dict[str, Any] = {}
    for launcher, jobs in submitted(folder):
        found |= launcher.poll(jobs)
    return found


def book(work: Work) -> Path:
    return Path(work.manifest).parent / "jobs.jsonl"
