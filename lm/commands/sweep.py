"""Experiments of many runs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg, subcommand

from lm.commands.options import OfExperiment, OnMachine, table

if TYPE_CHECKING:
    from lm.sharding import Layout
    from lm.sweep.file import ExperimentFile
    from lm.sweep.manifest import Entry


@dataclass(frozen=True, kw_only=True)
class Plan(OfExperiment):
    """Show every run of the experiment with its size and cost; nothing is trained."""

    def __call__(self) -> int:
        from lm.sweep import Ablation, manifest

        found, entries, folder = self.experiment()
        manifest.write(entries, folder / "manifest.jsonl")
        print(f"{found.name}: {found.question}\n")
        rows = [entry.row() for entry in entries]
        print(table(rows, ("id", "arm", "seed", "status", "group", "params", "tokens", "flops")))
        left = [row for row in rows if row["status"] != "done"]
        groups = len({row["group"] for row in left})
        print(f"\n{len(rows)} runs, {len(left)} to do in {groups} programs: {sum(r['flops'] for r in left):.3g} FLOPs")
        if isinstance(found.experiment, Ablation):
            print(found.experiment.match_note())
        return 0


@dataclass(frozen=True, kw_only=True)
class RunSweep(OfExperiment, OnMachine):
    """Do the runs that aren't done yet, then write the report.

    lm sweep run experiments/attention_ablation.py --preset smoke
    """

    def __call__(self) -> int:
        from lm.sweep import manifest
        from lm.sweep.execute import execute
        from lm.train.loop import Stopped

        found, entries, folder = self.experiment()
        where = self.machine()
        manifest.write(entries, folder / "manifest.jsonl")
        print(f"{found.name}: {found.question}", flush=True)
        try:
            outcome = execute(entries, where, say=functools.partial(print, flush=True))
        except Stopped as stopped:
            print(stopped)
            return 0
        said = f"{outcome.done} runs done now, {outcome.before} before"
        print(said + (f", {len(outcome.failed)} failed" if outcome.failed else ""))
        _report(found, entries, folder, where.layout)
        if outcome.busy:
            print(f"{len(outcome.busy)} runs are held by another process; run the self again when it is done")
        return 1 if outcome.failed or outcome.busy else 0


@dataclass(frozen=True, kw_only=True)
class Status(OfExperiment):
    """Show what is done, failed and still to do."""

    def __call__(self) -> int:
        found, entries, _ = self.experiment()
        rows = []
        for entry in entries:
            row = entry.row()
            row["note"] = ""
            if row["status"] == "done":
                row["note"] = f"held-out loss {entry.folder.result()['heldout_loss']:.4f}"
            elif row["status"] == "failed":
                row["note"] = entry.folder.failure()
            rows.append(row)
        print(table(rows, ("id", "arm", "seed", "status", "note")))
        counts = {
            s: sum(row["status"] == s for row in rows) for s in ("done", "running", "failed", "interrupted", "new")
        }
        print(f"\n{found.name}: " + ", ".join(f"{n} {name}" for name, n in counts.items() if n))
        return 0


@dataclass(frozen=True, kw_only=True)
class Report(OfExperiment):
    """Write the report of the runs that are done: HTML, PNG and CSV."""

    def __call__(self) -> int:
        from lm.sharding import layout

        _report(*self.experiment(), layout())
        return 0


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Experiments of many runs: plan, run, status, report."""

    action: Annotated[
        Annotated[Plan, subcommand("plan")]
        | Annotated[RunSweep, subcommand("run")]
        | Annotated[Status, subcommand("status")]
        | Annotated[Report, subcommand("report")],
        arg(name=""),
    ]


def _report(found: ExperimentFile, entries: tuple[Entry, ...], folder: Path, layout: Layout) -> None:
    from lm.errors import UserError
    from lm.sweep.report import report

    if not any(entry.status() == "done" for entry in entries):
        raise UserError(f"no run of {found.name} is done yet; lm sweep run {found.path} does them")
    made = report(found, entries, folder, layout)
    made.write(folder)
    print(f"\n{made.text()}\n\nreport: {folder / 'report.html'}")
