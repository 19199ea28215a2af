"""What starts workers somewhere: submit, poll, cancel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lm.config import config, from_dict, to_dict
from lm.sweep.launchers.work import Work
from lm.train.provenance import clock
from lm.train.rows import Rows, read

State = Literal["queued", "running", "ended", "unknown"]


@config
class Launcher:
    """A place for workers. A worker that ends, however it ends, takes nothing along: another goes on with its runs."""

    def submit(self, work: Work) -> list[str]:
        """Starts the workers `work.numbers` and returns their jobs' names, in that order, at once."""
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


@config
class Rendered:
    """A launcher that writes what another engine reads; that engine then starts, watches and ends the workers."""

    def seen(self, manifest: Path) -> Path:
        """Where the workers find a manifest that is here at `manifest`."""
        raise NotImplementedError

    def render(self, work: Work) -> str:
        """The text of a file. Raises LaunchError where the work and these resources don't fit."""
        raise NotImplementedError

    def apply(self, work: Work, path: str) -> tuple[str, ...]:
        """The command that starts the workers by what `render` gave, written to the file `path`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Started:
    """A job that was submitted, the worker it is, and by what."""

    job: str
    worker: int
    launcher: Launcher

    @property
    def state(self) -> State:
        return self.launcher.poll([self.job])[self.job]


def submit(launcher: Launcher, work: Work) -> list[Started]:
    """Starts the workers and notes their jobs beside the manifest, in jobs.jsonl."""
    started = [Started(*pair, launcher) for pair in zip(launcher.submit(work), work.numbers, strict=True)]
    text = json.dumps(to_dict(launcher))
    with Rows(work.manifest.parent / "jobs.jsonl") as file:
        for one in started:
            file.append({"job": one.job, "worker": one.worker, "launcher": text, "time": clock()})
    return started


def running(folder: Path) -> list[Started]:
    """The jobs of the experiment in `folder` that haven't ended."""
    found: dict[str, list[Started]] = {}
    for row in read(folder / "jobs.jsonl"):
        launcher = from_dict(json.loads(row["launcher"]))
        found.setdefault(row["launcher"], []).append(Started(row["job"], row["worker"], launcher))
    return [one for started in found.values() for one in alive(started)]


def alive(started: Sequence[Started]) -> list[Started]:
    """Those of some jobs of one launcher that haven't ended."""
    if not started:
        return []
    states = started[0].launcher.poll([one.job for one in started])
    return [one for one in started if states[one.job] != "ended"]
