"""How far a sweep is: every run's state from its folder, and when the rest will be done."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.sweep.manifest import Entry
from lm.train.folder import Status

ORDER: tuple[Status, ...] = ("done", "running", "failed", "interrupted", "new")
TAIL = 1 << 14  # bytes at the end of a file of rows that are looked at


@dataclass(frozen=True)
class RunState:
    """One run: its state, the steps it has done, its newest losses and speed, and why it failed."""

    entry: Entry
    status: Status
    step: int
    loss: float | None
    heldout: float | None
    tokens_per_second: float | None
    note: str
    process: str  # who trains it, where it is being trained

    @property
    def left(self) -> float:
        """FLOPs still to do."""
        run = self.entry.planned.run
        return 0.0 if self.status == "done" else run.flops * (1 - self.step / run.train.steps)

    def row(self) -> dict[str, Any]:
        steps = self.entry.planned.run.train.steps
        return {
            "id": self.entry.id,
            "arm": self.entry.planned.arm,
            "seed": self.entry.planned.seed,
            "status": self.status,
            "step": f"{self.step}/{steps}",
            "loss": self.loss,
            "held-out": self.heldout,
            "tokens/s": self.tokens_per_second,
            "note": self.note,
        }


@dataclass(frozen=True)
class SweepState:
    """All runs of a sweep."""

    runs: tuple[RunState, ...]

    @property
    def counts(self) -> dict[Status, int]:
        found: dict[Status, int] = {status: sum(run.status == status for run in self.runs) for status in ORDER}
        return {status: count for status, count in found.items() if count}

    @property
    def best(self) -> RunState | None:
        """The finished run with the lowest held-out loss."""
        done = [run for run in self.runs if run.status == "done" and run.heldout is not None]
        return min(done, key=lambda run: run.heldout or 0.0, default=None)

    @property
    def seconds_left(self) -> float | None:
        """Until all is done, if as many runs go on at once as now and at the speeds seen so far; None if none runs."""
        running = [run for run in self.runs if run.status == "running"]
        speeds = []
        for run in self.runs:
            if run.tokens_per_second:
                config = run.entry.planned.run
                speeds.append(run.tokens_per_second * config.flops / config.tokens)
        if not running or not speeds:
            return None
        left = sum(run.left for run in self.runs if run.status != "failed")
        return left / (sum(speeds) / len(speeds)) / len({run.process for run in running})

    def line(self) -> str:
        """One line: counts, the best so far, the time left."""
        from lm.train.progress import duration

        parts = [", ".join(f"{count} {status}" for status, count in self.counts.items())]
        if self.best is not None:
            parts.append(f"best {self.best.heldout:.4f} ({self.best.entry.planned.label})")
        if self.seconds_left is not None:
            parts.append(f"about {duration(self.seconds_left)} left")
        return "; ".join(parts)


def state(entries: Sequence[Entry]) -> SweepState:
    """The state of a sweep now. Reads the end of each run's rows."""
    return SweepState(tuple(map(_run, entries)))


def _run(entry: Entry) -> RunState:
    status = entry.status()
    rows = last_rows(entry.folder.rows) if status != "new" else []
    train = next((row for row in reversed(rows) if row["split"] == "train"), {})
    heldout = next((row for row in reversed(rows) if row["split"] == "heldout"), {})
    note = entry.folder.failure() if status == "failed" else ""
    speed = next((row["tokens_per_second"] for row in reversed(rows) if row.get("tokens_per_second")), None)
    step = max(train.get("step", 0), heldout.get("step", 0))
    process = _holder(entry.folder.path) if status == "running" else ""
    return RunState(entry, status, step, train.get("loss"), heldout.get("loss"), speed, note, process)


def _holder(folder: Path) -> str:
    """Process and machine that hold a run: those of a fleet are one."""
    try:
        owner = json.loads((folder / "lease").read_text())
        return f"{owner['pid']} {owner['host']}"
    except (OSError, ValueError, KeyError):
        return folder.name


def last_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows at the end of a file, without reading what is before."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = max(0, end - TAIL)
            file.seek(start)
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    whole = lines[1 if start else 0 : -1]  # the last has no end yet, or is empty
    return [json.loads(line) for line in whole]
