"""Looking at configs, costs and the machine; nothing is trained."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.commands.options import OfExperiment, Shared, table
from lm.config import diff, dumps, override


@dataclass(frozen=True, kw_only=True)
class Config(OfExperiment):
    """Print an experiment, or a run's folder, as JSON with every default filled in; or compare two."""

    diff: str | None = None
    """Another file or folder: print only what differs, as path: this -> that."""

    def __call__(self) -> int:
        value = _value(self.file, self)
        if self.diff is None:
            print(dumps(value, indent=2))
            return 0
        for path, (mine, other) in diff(value, _value(self.diff, self)).items():
            print(f"{path or 'all'}: {mine} -> {other}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Cost(OfExperiment):
    """Parameters, FLOPs and memory of every arm of an experiment, before anything runs."""

    def __call__(self) -> int:
        from lm.sweep import Ablation, file
        from lm.train.memory import memory

        found = file.load(self.file, self.preset, self.overrides)
        rows = []
        for name, (base, _) in found.experiment.arms_resolved().items():
            cost = base.cost
            rows.append(
                {
                    "arm": name,
                    "params": cost.params,
                    "non-emb.": cost.non_embedding,
                    "active": cost.active,
                    "FLOPs/token": cost.flops / base.data.length,
                    "train FLOPs": float(base.flops),
                    "tokens": base.tokens,
                    "KV B/token": cost.cache_bytes() / base.data.length,
                    "memory MB": memory(base).total / 1e6,
                }
            )
        print(table(rows, tuple(rows[0])))
        print("\nFLOPs/token: forward, at the run's length; training takes three times that.", end=" ")
        print("KV bytes at 2 bytes a number.")
        if isinstance(found.experiment, Ablation):
            print(found.experiment.match_note())
        print("memory: parameters, gradients, optimizer and an estimate of activations, on one device.")
        return 0


@dataclass(frozen=True, kw_only=True)
class Doctor(Shared):
    """Say what this machine has and what is wrong with it."""

    def __call__(self) -> int:
        from lm import doctor

        problems = doctor.examine(sys.stdout)
        return 1 if problems else 0


def _value(path: str, command: Config) -> Any:
    """The experiment of a file, or the run of a folder."""
    from lm.sweep import file
    from lm.train.folder import RunFolder

    if Path(path).is_dir():
        return override(RunFolder(Path(path)).config(), command.overrides)
    return file.load(path, command.preset, command.overrides).experiment
