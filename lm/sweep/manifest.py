"""The manifest: every run of an experiment, resolved, named by its content, with what it will cost.

It is what workers go by: they never read the experiment's file, which may change while they work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm import data
from lm.config import diff, from_dict, to_dict
from lm.errors import UserError
from lm.files import write_atomically
from lm.sweep.experiment import Experiment, Planned
from lm.train.folder import RunFolder, Status
from lm.train.memory import memory
from lm.train.rows import Rows


@dataclass(frozen=True)
class Entry:
    """A planned run with its id, the fingerprint of its data, its group (see `Run.group`) and its folder."""

    planned: Planned
    id: str
    data: str
    group: str
    folder: RunFolder

    def status(self) -> Status:
        return self.folder.status()

    def row(self) -> dict[str, Any]:
        """What the manifest says of the run."""
        run = self.planned.run
        cost = run.cost
        return {
            "id": self.id,
            "group": self.group,
            "arm": self.planned.arm,
            "seed": self.planned.seed,
            "params": cost.params,
            "non_embedding": cost.non_embedding,
            "flops_per_token": cost.flops / run.data.length,
            "kv_bytes_per_token": cost.cache_bytes() / run.data.length,
            "tokens": run.tokens,
            "flops": run.flops,
            "point": {path: to_dict(value) for path, value in self.planned.point.items()},
        }


def manifest(experiment: Experiment, results: Path, name: str = "") -> tuple[Entry, ...]:
    """The experiment's runs in the order they are done. Reads the corpora, to name runs by their contents.

    name: that of its folder in `results`, by which a search knows its runs so far.
    """
    return entries(experiment.so_far(results / name) if name else experiment.planned(), results)


def entries(planned: Sequence[Planned], results: Path) -> tuple[Entry, ...]:
    fingerprints: dict[Any, str] = {}
    made = []
    for one in planned:
        run = one.run
        source = run.data.contents
        if source not in fingerprints:
            fingerprints[source] = data.fingerprint(run.data)
        found = fingerprints[source]
        name = run.id(found)
        made.append(Entry(one, name, found, run.group(found), RunFolder(results / "runs" / name)))
    return tuple(made)


def write(entries: Sequence[Entry], path: Path) -> None:
    """The manifest as JSON lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, int] = {}
    lines = []
    for entry in entries:
        run = entry.planned.run
        if entry.group not in sizes:
            sizes[entry.group] = memory(run).total
        lines.append(json.dumps(_row(entry, sizes[entry.group])) + "\n")
    write_atomically(path, "".join(lines))


def add(entry: Entry, path: Path) -> None:
    """Appends a run to a manifest that grows, unless it is in there. For one process at a time."""
    with Rows(path) as file:
        before = rows(path)
        if not any((row["id"], row["arm"]) == (entry.id, entry.planned.arm) for row in before):
            sizes = [row["memory"] for row in before if row["group"] == entry.group]
            file.append(_row(entry, sizes[0] if sizes else memory(entry.planned.run).total))


def _row(entry: Entry, size: int) -> dict[str, Any]:
    return entry.row() | {"memory": size, "data": entry.data, "config": to_dict(entry.planned.run)}


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a written manifest, [] if there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read(path: Path, results: Path | None = None) -> tuple[Entry, ...]:
    """The runs of a written manifest. results: the folder above that of the manifest, unless told."""
    if not path.is_file():
        raise UserError(f"there is no manifest {path}; lm sweep plan FILE writes it")
    runs = (path.parent.parent if results is None else results) / "runs"
    found = []
    for row in rows(path):
        point = {name: from_dict(value) for name, value in row["point"].items()}
        planned = Planned(from_dict(row["config"]), row["arm"], row["seed"], point)
        found.append(Entry(planned, row["id"], row["data"], row["group"], RunFolder(runs / row["id"])))
    return tuple(found)


@dataclass(frozen=True)
class Changes:
    """What sets a plan apart from the one before, by the runs' labels; `changed` with the fields: old -> new."""

    new: tuple[str, ...]
    changed: dict[str, str]
    gone: tuple[str, ...]

    def text(self) -> str:
        """One line each, or nothing."""
        lines = [f"{len(self.new)} new: {_some(self.new)}"] if self.new else []
        if self.changed:
            lines += [f"{len(self.changed)} changed: {_some(dict.fromkeys(self.changed.values()))}"]
        if self.gone:
            lines += [f"{len(self.gone)} no longer planned: {_some(self.gone)}; what they have done stays"]
        return "\n".join(lines)


def changes(before: Sequence[dict[str, Any]], entries: Sequence[Entry]) -> Changes | None:
    """What is new in `entries` against a manifest's rows; None if there was no manifest."""
    if not before:
        return None
    old = {(row["arm"], row["seed"]): row for row in before}
    now = {(entry.planned.arm, entry.planned.seed): entry for entry in entries}
    changed = {}
    for key, entry in now.items():
        if key in old and old[key]["id"] != entry.id:
            found = diff(from_dict(old[key]["config"]), entry.planned.run)
            changed[entry.planned.label] = ", ".join(f"{p}: {a} -> {b}" for p, (a, b) in found.items()) or "its data"
    new = tuple(entry.planned.label for key, entry in now.items() if key not in old)
    return Changes(new, changed, tuple(f"{arm} seed {seed}" for arm, seed in old if (arm, seed) not in now))


def _some(labels: Any, most: int = 4) -> str:
    labels = list(labels)
    return "; ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")
