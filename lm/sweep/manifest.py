"""The manifest: every run of an experiment, resolved, named by its content, with what it will cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm import data
from lm.config import content_hash, lift, to_dict
from lm.files import write_atomically
from lm.sweep.experiment import Experiment, Planned
from lm.train.folder import RunFolder, Status


@dataclass(frozen=True)
class Entry:
    """A planned run with its id, its group (runs of a group share one executable) and its folder."""

    planned: Planned
    id: str
    group: str
    folder: RunFolder

    def status(self) -> Status:
        return self.folder.status()

    def row(self) -> dict[str, Any]:
        run = self.planned.run
        cost = run.model.cost(run.data.length)
        return {
            "id": self.id,
            "group": self.group,
            "arm": self.planned.arm,
            "seed": self.planned.seed,
            "status": self.status(),
            "params": cost.params,
            "non_embedding": cost.non_embedding,
            "flops_per_token": cost.flops / run.data.length,
            "kv_bytes_per_token": cost.cache_bytes() / run.data.length,
            "tokens": run.tokens,
            "flops": run.flops,
            "point": {path: to_dict(value) for path, value in self.planned.point.items()},
        }


def manifest(experiment: Experiment, results: Path) -> tuple[Entry, ...]:
    """The experiment's runs in the order they are done. Reads the corpora, to name runs by their contents."""
    fingerprints: dict[Any, str] = {}
    entries = []
    for planned in experiment.planned():
        run = planned.run
        source = (run.data.corpus, run.data.tokenizer, run.data.heldout)
        if source not in fingerprints:
            fingerprints[source] = data.fingerprint(run.data)
        name = run.id(fingerprints[source])
        shape, _ = lift(run.train)
        program = content_hash([run.model, shape, run.data.batch, run.data.length])
        entries.append(Entry(planned, name, program, RunFolder(results / "runs" / name)))
    return tuple(entries)


def write(entries: tuple[Entry, ...], path: Path) -> None:
    """The manifest as JSON lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(entry.row()) + "\n" for entry in entries))
