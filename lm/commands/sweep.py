"""Experiments of many runs: plan, run, submit, report. What watches over them is in `lm.commands.watch`."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg, subcommand

from lm.commands import search
from lm.commands.options import OfExperiment, table
from lm.commands.watch import Cancel, Prune, Retry, Status
from lm.commands.worker import Doing, Work
from lm.errors import UserError

if TYPE_CHECKING:
    from lm.sharding import Layout
    from lm.sweep.file import ExperimentFile
    from lm.sweep.launchers.base import Launcher, Rendered
    from lm.sweep.launchers.work import Work as Asked
    from lm.sweep.manifest import Entry


@dataclass(frozen=True, kw_only=True)
class Costed(OfExperiment):
    """Options of commands that say what an experiment will cost."""

    device: str | None = None
    """Hours on this device by its published peak, e.g. H100 or "TPU v5p". Default: this machine, measured."""
    utilisation: float = 0.4
    """The share of a stated device's peak that training reaches."""
    budget: str | None = None
    """Refuse a plan beyond it: 10h, 30min, 2d, or FLOPs as 1e18."""


@dataclass(frozen=True, kw_only=True)
class Plan(Costed):
    """Show every run of the experiment with its size and cost; nothing is trained.

    lm sweep plan experiments/attention_ablation.py --device H100 --budget 10h
    """

    mesh: str = ""
    """Devices that a run will use, e.g. data=8: where the speed is measured."""

    def __call__(self) -> int:
        from lm.sharding import layout
        from lm.sweep import Ablation, Search, estimate, manifest
        from lm.train.progress import duration

        found, entries, folder = self.experiment()
        if isinstance(found.experiment, Search):
            return search.plan(self, found, entries, folder)
        path = folder / "manifest.jsonl"
        before = manifest.changes(manifest.rows(path), entries)
        left = [entry for entry in entries if entry.status() != "done"]
        if self.device:
            speed = estimate.stated(left, self.device, self.utilisation)
        else:
            groups = {entry.group for entry in left}
            alike = [entry for entry in entries if entry.group in groups]  # those that are done tell how long it takes
            speed = estimate.here(alike, folder / "speeds.jsonl", layout(self.mesh))
        hours = {entry.id: speed.hours(entry) for entry in left}
        total, flops = sum(hours.values()), sum(entry.planned.run.flops for entry in left)
        beyond = estimate.over_budget(self.budget, total, flops) if self.budget else None
        if beyond:
            raise UserError(f"this plan takes {beyond}; nothing was written: make it smaller, or raise --budget")
        manifest.write(entries, path)
        print(f"{found.name}: {found.question}\n")
        sizes = {row["id"]: row["memory"] for row in manifest.rows(path)}
        rows = [
            {
                "id": entry.id,
                "arm": entry.planned.arm,
                "seed": entry.planned.seed,
                "status": entry.status(),
                "params": entry.row()["params"],
                "FLOPs": f"{entry.planned.run.flops:.2e}",
                "memory": f"{sizes[entry.id] / 1e6:,.0f} MB",
                "time": duration(3600 * hours[entry.id]) if entry.id in hours else "",
            }
            for entry in entries
        ]
        if rows:
            print(table(rows, tuple(rows[0])))
        if before is not None and before.text():
            print(f"\nSince the plan before:\n{before.text()}")
        groups = len({entry.group for entry in left})
        print(
            f"\n{len(rows)} runs, {len(left)} to do in {groups} groups: {flops:.3g} FLOPs, "
            f"{duration(3600 * total)} one after another ({speed.source})"
        )
        if isinstance(found.experiment, Ablation):
            print(found.experiment.match_note())
        return 0


@dataclass(frozen=True, kw_only=True)
class RunSweep(OfExperiment, Doing):
    """Do the runs that aren't done yet, then write the report.

    lm sweep run experiments/attention_ablation.py --preset smoke
    lm sweep run experiments/attention_ablation.py --on Local --workers 2
    """

    on: str = "here"
    """Where: here (this process), or a launcher that is waited for: Local, "Slurm(partition='gpu', gpus=1)"."""
    workers: int = 2
    """Worker processes of a launcher."""

    def __call__(self) -> int:
        from lm.sharding import layout
        from lm.sweep import Search, manifest
        from lm.train import hosts

        joined, on_first, say = False, lambda act: act(), functools.partial(print, flush=True)
        if self.on == "here":
            hosts.join(self.distributed)
            joined, on_first = hosts.several(), hosts.on_first
            say = say if hosts.first() else lambda _: None
        else:  # JAX isn't asked: what it takes of this machine's devices, workers couldn't have
            _starts_alone(self)
        found, entries, folder = self.experiment()
        say(f"{found.name}: {found.question}")
        if isinstance(found.experiment, Search):
            return self._search(found, folder)
        on_first(lambda: manifest.write(entries, folder / "manifest.jsonl"))
        if self.on == "here":
            self._here(entries, folder, say)
        else:
            self._elsewhere(found, entries, folder)
        place = ("", None) if joined else (self.mesh, self.rules)  # where the first measures speed by itself
        on_first(lambda: _report(found, entries, folder, layout(*place)))
        failed = [entry for entry in entries if entry.status() == "failed"]
        if failed:
            say(f"{len(failed)} runs failed; {found.to('retry')} lets them be tried again")
        return 0 if all(entry.status() == "done" for entry in entries) else 1

    def _search(self, found: ExperimentFile, folder: Path) -> int:
        from lm.sharding import layout

        search.seek(self, found, folder)
        _report(*self.experiment(), layout(self.mesh, self.rules))
        return 1 if search.ahead(found, folder) else 0

    def _here(self, entries: tuple[Entry, ...], folder: Path, say: Callable[[str], None]) -> None:
        """Trains in this process."""
        from lm.sweep.execute import Worker

        worker = Worker(entries, self.machine(), folder / "speeds.jsonl", say=say, together=self.together)
        outcome = worker.work()
        said = f"{outcome.done} runs done now, {outcome.before} before"
        say(said + (f", {len(outcome.failed)} failed" if outcome.failed else ""))
        if outcome.busy:
            say(f"{len(outcome.busy)} runs are held by another process; give the command again when it is done")

    def _elsewhere(self, found: ExperimentFile, entries: tuple[Entry, ...], folder: Path) -> None:
        from lm.commands.watch import live
        from lm.sweep.launchers.base import Rendered
        from lm.sweep.supervise import supervise

        launcher = _launcher(self.on)
        if isinstance(launcher, Rendered):
            raise UserError(f"{type(launcher).__name__} can't be waited for; use lm sweep submit")
        with live(found.name) as watch:
            supervise(launcher, _work(self, found, folder, launcher), entries, watch)


@dataclass(frozen=True, kw_only=True)
class Submit(Costed, Doing):
    """Start workers for the runs that aren't done yet, and return. lm sweep status shows how they get on.

    lm sweep submit FILE --on Local --workers 2
    lm sweep submit FILE --on "Slurm(partition='gpu', gpus=1, minutes=240)" --workers 16
    lm sweep submit FILE --on "GKE(accelerator='v5p', topology='2x2x2', ...)": writes what kubectl applies
    """

    on: str
    """Local, Slurm(...), GKE(...) or SkyPilot(...): a launcher with its fields."""
    workers: int = 2
    """Worker processes, each with the cores, GPUs or nodes that the launcher gives it."""

    def __call__(self) -> int:
        from lm.files import write_atomically
        from lm.sweep import Search, estimate, manifest
        from lm.sweep.launchers.base import Rendered, submit

        _starts_alone(self)
        found, entries, folder = self.experiment()
        launcher = _launcher(self.on)
        left = [entry for entry in entries if entry.status() != "done" and not entry.folder.failed_for_good()]
        if isinstance(found.experiment, Search):
            left = search.ahead(found, folder)
        if not left:
            print(f"{found.name}: nothing is left to do")
            return 0
        if self.budget:
            if not self.device:
                raise UserError("--budget needs --device here: the hours are those of the device that will do the runs")
            speed = estimate.stated(left, self.device, self.utilisation)
            flops = sum(entry.planned.run.flops for entry in left)
            beyond = estimate.over_budget(self.budget, sum(map(speed.hours, left)), flops)
            if beyond:
                raise UserError(f"this takes {beyond}; nothing was submitted")
        if isinstance(found.experiment, Search):
            search.begin(self, found, folder)
        else:
            manifest.write(entries, folder / "manifest.jsonl")
        work = _work(self, found, folder, launcher)
        if isinstance(launcher, Rendered):
            path = folder / f"{type(launcher).__name__.lower()}.yaml"
            write_atomically(path, launcher.render(work))
            print(f"{path} starts {work.workers} workers for {len(left)} runs; they look for {work.manifest}:")
            print(shlex.join(launcher.apply(work, str(path))))
            return 0
        for one in submit(launcher, work):
            print(f"worker {one.worker}: {one.job}")
        print(f"{len(left)} runs to do; {found.to('status')} shows how they get on")
        return 0


def _starts_alone(command: RunSweep | Submit) -> None:
    """Raises UserError for --distributed with a launcher, which would have no effect."""
    if command.distributed:
        raise UserError(
            f"--distributed is for processes that train themselves; with --on {command.on} a worker has several where "
            "the launcher gives it several machines, as Slurm(nodes=2) does: leave --distributed out"
        )


def _launcher(text: str) -> Launcher | Rendered:
    """The launcher that `--on` names. Raises UserError where it can't work."""
    from lm.literals import read
    from lm.sweep.launchers import Launcher, Rendered

    launcher = read(text, Launcher | Rendered, "--on")
    why = launcher.ready() if isinstance(launcher, Launcher) else None
    if why:
        raise UserError(f"--on {text}: {why}")
    return launcher


def _work(command: RunSweep | Submit, found: ExperimentFile, folder: Path, launcher: Launcher | Rendered) -> Asked:
    from lm.sweep.launchers.base import Rendered
    from lm.sweep.launchers.names import dns_label
    from lm.sweep.launchers.work import Work

    given = {
        "--mesh": command.mesh,
        "--rules": command.rules,
        "--together": command.together,
        "--tries": str(command.tries),
        "--profile": command.profile,
    }
    options = [part for name, value in given.items() if value for part in (name, value)]
    options += ["--log", *command.log] if command.log else []
    manifest = (folder / "manifest.jsonl").absolute()
    if isinstance(launcher, Rendered):
        manifest = launcher.seen(manifest)
    name = dns_label(found.name)
    return Work(name=name, manifest=manifest, workers=command.workers, options=(*options, "--quiet"))


@dataclass(frozen=True, kw_only=True)
class Report(OfExperiment):
    """Write the report of the runs that are done: HTML, PNG and CSV."""

    def __call__(self) -> int:
        from lm.sharding import layout

        _report(*self.experiment(), layout())
        return 0


def _report(found: ExperimentFile, entries: tuple[Entry, ...], folder: Path, layout: Layout) -> None:
    from lm.sweep.report import report

    if entries and not any(entry.status() == "done" for entry in entries):
        raise UserError(f"no run of {found.name} is done yet; {found.command} does them")
    made = report(found, entries, folder, layout)
    made.write(folder)
    print(f"\n{made.text()}\n\nreport: {folder / 'report.html'}")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Experiments of many runs: plan, run, submit, watch, report."""

    action: Annotated[
        Annotated[Plan, subcommand("plan")]
        | Annotated[RunSweep, subcommand("run")]
        | Annotated[Submit, subcommand("submit")]
        | Annotated[Work, subcommand("worker")]
        | Annotated[Status, subcommand("status")]
        | Annotated[Cancel, subcommand("cancel")]
        | Annotated[Retry, subcommand("retry")]
        | Annotated[Prune, subcommand("prune")]
        | Annotated[Report, subcommand("report")],
        arg(name=""),
    ]
