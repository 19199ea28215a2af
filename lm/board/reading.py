"""What the pages show of a results folder, as plain values that become JSON. Nothing here writes."""

from __future__ import annotations

import functools
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from lm.board.errors import NotThere
from lm.board.run_files import RunFiles, inside
from lm.board.said import Said, said
from lm.board.thin import smooth, thin
from lm.sweep import store
from lm.train.folder import RunFolder
from lm.train.rows import read

Row = dict[str, Any]

FRESH = 2.0  # seconds that one look at the folder serves all pages, at least
SHARE = 10  # and so many times what the look took, so that a large folder keeps a tenth of a core busy at most
STATUSES = ("done", "running", "interrupted", "failed", "new")
NUMBERS = (
    "params", "tokens", "flops", "heldout_loss", "heldout_bpb", "heldout_accuracy", "tokens_per_second", "seconds",
    "memory",
)  # fmt: skip
WHOLE = ("seed", "params", "tokens", "memory")  # a table with gaps holds them as floats
POINTS = 1000  # of a curve that is sent
SHORT = 20  # characters of a varied value that is shown as a column; the arm's name says what is longer


class Reader:
    """A results folder. Several threads may ask at a time; the folder is looked at once for all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._runs: list[Row] = []
        self._until = 0.0

    def runs(self) -> list[Row]:
        """Every run of every experiment and of none, as it was moments ago."""
        with self._lock:
            began = time.monotonic()
            if began >= self._until:
                self._runs = _rows(self._listed())
                now = time.monotonic()
                self._until = now + max(FRESH, SHARE * (now - began))
            return self._runs

    def _listed(self) -> list[store.Listed]:
        """What the manifests list, and the runs that none does (`lm train` makes such)."""
        listed = store.listed(self.folder) if any(self.folder.glob(f"*/{store.MANIFEST}")) else []
        known = {run.row["id"] for run in listed}
        runs = self.folder / "runs"
        names = sorted(os.listdir(runs)) if runs.is_dir() else []
        loose = [name for name in names if name not in known and (runs / name / "config.json").is_file()]
        return listed + [store.Listed("", {"id": name, "point": {}}, RunFolder(runs / name)) for name in loose]

    def experiments(self) -> list[Row]:
        """Each experiment with its counts by status, its best run and when it last changed; the newest first."""
        groups: dict[str | None, list[Row]] = {}
        for run in self.runs():
            groups.setdefault(run["experiment"], []).append(run)
        found = [self._overview(name, runs) for name, runs in groups.items()]
        return sorted(found, key=lambda e: (e["name"] is None, -e["changed"]))

    def _overview(self, name: str | None, runs: list[Row]) -> Row:
        measured = [run for run in runs if run["status"] == "done" and run["heldout_loss"] is not None]
        best = min(measured, key=lambda run: run["heldout_loss"], default=None)
        return {
            "name": name,
            "question": self.said(name).question,
            "counts": counts(runs),
            "best": best and best["heldout_loss"],
            "best_arm": best and best["arm"],
            "changed": max((_changed(self._path(run["id"]) / "rows.jsonl") for run in runs), default=0.0),
            "report": self.has_report(name),
        }

    def experiment(self, name: str | None) -> Row:
        """The runs of an experiment (None: those of no experiment), its axes, counts and seconds left.

        axes: the paths whose plain values set its points apart. Raises NotThere.
        """
        runs = [self.with_progress(run) for run in self.runs_of(name)]
        return {"axes": axes(runs), "counts": counts(runs), "eta": time_left(runs), "runs": runs}

    def runs_of(self, name: str | None) -> list[Row]:
        """The runs of an experiment, or of none. Raises NotThere."""
        runs = [run for run in self.runs() if run["experiment"] == name]
        if not runs and name is not None:
            raise NotThere(f"there is no experiment '{name}' in {self.folder}")
        return runs

    def said(self, name: str | None) -> Said:
        return Said() if name is None else said(self.folder / name / "report.html")

    def has_report(self, name: str | None) -> bool:
        return name is not None and (self.folder / name / "report.html").is_file()

    def file(self, experiment: str, name: str) -> Path:
        """A file of an experiment's folder. Raises NotThere for what isn't one, or lies elsewhere."""
        path = inside(inside(self.folder, experiment), name)
        if not path.is_file() or not (path.parent / "manifest.jsonl").is_file():
            raise NotThere(f"there is no file {name!r} in {experiment!r}")
        return path

    def run(self, name: str) -> Row:
        """One run as the table has it, with its progress. Raises NotThere."""
        for run in self.runs():
            if run["id"] == name:
                return self.with_progress(run)
        raise NotThere(f"there is no run '{name}' in {self.folder}")

    def files(self, name: str) -> RunFiles:
        """The files of a run that `runs` lists. Raises NotThere."""
        if all(run["id"] != name for run in self.runs()):
            raise NotThere(f"there is no run '{name}' in {self.folder}")
        return RunFiles(inside(self.folder / "runs", name))

    def with_progress(self, run: Row) -> Row:
        """The run with "step", "steps", "fraction" and "eta" (seconds), and its speed now; None: nothing is known."""
        found: Row = {"step": None, "steps": None, "fraction": None, "eta": None}
        if run["status"] == "done":
            return {**run, **found, "fraction": 1.0}
        if run["status"] != "new":
            found |= _progress(RunFiles(self._path(run["id"])), run["tokens"])
        return {**run, **found}

    def curves(self, names: Sequence[str], smoothing: float) -> dict[str, Any]:
        """Loss by split of each run: {"step", "tokens", "loss"}, thinned; the training loss smoothed before."""
        known = {run["id"]: run for run in self.runs()}
        found = {}
        for name in names:
            if name not in known:
                raise NotThere(f"there is no run '{name}' in {self.folder}")
            run, path = known[name], self.files(name).path / "rows.jsonl"
            curve: Row = dict(_curve(path, _stamp(path), smoothing))
            a_token = run["flops"] / run["tokens"] if run["flops"] and run["tokens"] else None
            found[name] = curve | {"flops_per_token": a_token}
        return found

    def _path(self, name: str) -> Path:
        return self.folder / "runs" / name


def counts(runs: Sequence[Row]) -> dict[str, int]:
    """How many runs are in each state, in the order they come about; states of none are left out."""
    found = Counter(run["status"] for run in runs)
    return {status: found[status] for status in STATUSES if found[status]}


def axes(runs: Sequence[Row]) -> list[str]:
    """The paths of the runs' points that hold numbers or short words, not all the same."""
    paths = dict.fromkeys(path for run in runs for path in run["point"])
    values = {path: [run["point"].get(path) for run in runs] for path in paths}
    return [p for p, vs in values.items() if len(set(vs)) > 1 and all(len(str(v)) <= SHORT for v in vs)]


def time_left(runs: Sequence[Row]) -> float | None:
    """Seconds until all is done, if as many runs go on at once as now and at the speeds seen so far.

    None where nothing runs, or no speed is known. The same estimate as `lm sweep status` gives.
    """
    running = sum(run["status"] == "running" for run in runs)
    sized = [run for run in runs if run["flops"] and run["tokens"]]
    speeds = [run["tokens_per_second"] * run["flops"] / run["tokens"] for run in sized if run["tokens_per_second"]]
    if not running or not speeds:
        return None
    left = sum(run["flops"] * (1 - (run["fraction"] or 0.0)) for run in sized if run["status"] != "failed")
    return left / mean(speeds) / running


def _rows(listed: list[store.Listed]) -> list[Row]:
    """The store's table of runs as the pages take it: missing is None, and what a point sets is under "point"."""
    frame = store.runs_table(listed)
    columns = {str(name): [None if _missing(v) else v for v in frame[name].tolist()] for name in frame.columns}
    empty = [None] * len(listed)
    kept: dict[str, list[Any]] = {
        name: columns.get(name, empty) for name in ("id", "arm", "seed", "status", "error", *NUMBERS)
    }
    rows = []
    for i, run in enumerate(listed):
        row = {name: column[i] for name, column in kept.items()}
        row |= {name: int(row[name]) for name in WHOLE if row[name] is not None}
        points = {path: columns[path][i] for path in run.row.get("point", {})}
        rows.append({"experiment": run.experiment or None, **row, "point": points})
    return rows


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _progress(files: RunFiles, tokens: int | None) -> Row:
    rows = files.last_rows()
    speed = next((row["tokens_per_second"] for row in reversed(rows) if row.get("tokens_per_second")), None)
    step = max((row.get("step") or 0 for row in rows), default=0)
    steps = files.config().get("train.steps")
    fraction = min(step / steps, 1.0) if isinstance(steps, int) and steps else None
    eta = tokens * (1 - fraction) / speed if speed and tokens and fraction is not None else None
    return {"step": step, "steps": steps, "fraction": fraction, "eta": eta, "tokens_per_second": speed}


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=512)
def _curve(path: Path, stamp: tuple[int, int], smoothing: float) -> dict[str, Any]:
    """A run's curves; `stamp` changes with the file, so that one that stays is read once."""
    found: dict[str, Any] = {}
    rows = [row for row in read(path) if "loss" in row]
    for split in ("train", "heldout"):
        part = [row for row in rows if row.get("split") == split]
        loss = np.array([math.nan if row["loss"] is None else row["loss"] for row in part], float)
        if split == "train":
            loss = smooth(loss, smoothing)
        places = thin(loss, POINTS).tolist()
        found[split] = {
            "step": [part[i]["step"] for i in places],
            "tokens": [part[i]["tokens"] for i in places],
            "loss": [float(f"{loss[i]:.6g}") if math.isfinite(loss[i]) else None for i in places],
        }
    return found
