"""Watching over sweeps: status, cancel, retry, prune."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.commands.options import OfExperiment, Shared, table
from lm.errors import UserError

if TYPE_CHECKING:
    from lm.sweep.manifest import Entry
    from lm.sweep.status import SweepState

COLUMNS = ("id", "arm", "seed", "status", "step", "loss", "held-out", "tokens/s", "note")
SHOWN = 30  # runs of a sweep that fit a terminal


@dataclass(frozen=True, kw_only=True)
class OfSweep(OfExperiment):
    """Options of commands on a sweep that was planned: its file, or its folder under results/."""

    def sweep(self) -> tuple[str, tuple[Entry, ...], Path]:
        """Its name, the runs of its manifest, and its folder. What was planned holds, whatever the file says now."""
        from lm.sweep import manifest

        given = Path(self.file)
        if given.is_dir():
            return given.name, manifest.read(given / "manifest.jsonl", Path(self.results)), given
        found, entries, folder = self.experiment()
        path = folder / "manifest.jsonl"
        return found.name, manifest.read(path, Path(self.results)) if path.exists() else entries, folder


@dataclass(frozen=True, kw_only=True)
class Status(OfSweep):
    """Show what is done, running, failed and still to do."""

    watch: bool = False
    """Stay, and show it live until all is done."""

    def __call__(self) -> int:
        from lm.sweep.launchers.base import running
        from lm.sweep.status import state

        name, entries, folder = self.sweep()
        if self.watch:
            with live(name) as show:
                while True:
                    now = state(entries)
                    show(now)
                    if not {"running", "new", "interrupted"} & now.counts.keys():
                        return 0
                    time.sleep(1.0)
        now = state(entries)
        print(table([run.row() for run in now.runs], COLUMNS))
        print(f"\n{name}: {now.line()}")
        jobs = running(folder)
        if jobs:
            print(f"workers: {len(jobs)} ({', '.join(one.job for one in jobs)})")
        return 0


@dataclass(frozen=True, kw_only=True)
class Cancel(OfSweep):
    """Ask every worker of the sweep to save and end. lm sweep submit or run goes on later."""

    def __call__(self) -> int:
        from lm.sweep.launchers.base import running

        name, _, folder = self.sweep()
        jobs = running(folder)
        for one in jobs:
            one.launcher.cancel([one.job])
        print(f"{name}: asked {len(jobs)} workers to save and end")
        return 0


@dataclass(frozen=True, kw_only=True)
class Retry(OfSweep):
    """Forget the failures of failed runs, so that the next run or submit does them again from their checkpoints."""

    arm: tuple[str, ...] = ()
    """Only runs of these arms."""

    def __call__(self) -> int:
        name, entries, _ = self.sweep()
        known = {entry.planned.arm for entry in entries}
        for arm in self.arm:
            if arm not in known:
                raise UserError(f"{name} has no arm '{arm}'; it has: {', '.join(sorted(known))}")
        chosen = [e for e in entries if e.status() == "failed" and (not self.arm or e.planned.arm in self.arm)]
        for entry in chosen:
            entry.folder.retry()
            print(f"{entry.planned.label} ({entry.id}) will be tried again")
        if not chosen:
            print(f"{name}: no run has failed")
        return 0


@dataclass(frozen=True, kw_only=True)
class Prune(Shared):
    """Delete the folders of runs that no experiment's manifest names any more. Shows them, unless --yes is given."""

    results: str = "results"
    """The folder that runs and reports are kept in."""
    yes: bool = False
    """Do delete them."""

    def __call__(self) -> int:
        import shutil

        from lm.sweep import manifest
        from lm.train.folder import RunFolder
        from lm.train.lock import RunLocked, lock

        root = Path(self.results)
        if not (root / "runs").is_dir():
            raise UserError(f"there is no folder {root / 'runs'}; give the results folder with --results")
        named = {row["id"] for path in root.glob("*/manifest.jsonl") for row in manifest.rows(path)}
        orphans = [RunFolder(path) for path in sorted((root / "runs").iterdir()) if path.name not in named]
        orphans = [home for home in orphans if home.status() != "running"]
        size = 0
        for home in orphans:
            bytes_ = sum(file.stat().st_size for file in home.path.rglob("*") if file.is_file())
            size += bytes_
            print(f"{home.path}: {home.status()}, {bytes_ / 1e6:.1f} MB")
            if self.yes:
                with contextlib.suppress(RunLocked), lock(home.path):
                    shutil.rmtree(home.path)
        print(
            f"{len(orphans)} runs that no manifest names, {size / 1e6:.1f} MB"
            + ("" if self.yes or not orphans else "; --yes deletes them")
        )
        return 0


@contextlib.contextmanager
def live(name: str) -> Iterator[Callable[[SweepState], None]]:
    """A function that shows a sweep's state: redrawn in place on a terminal, elsewhere a line when it changes."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not console.is_terminal:
        said = ""

        def show(now: SweepState) -> None:
            nonlocal said
            counts = ", ".join(f"{count} {status}" for status, count in now.counts.items())
            if counts != said:
                print(f"{name}: {now.line()}", flush=True)
                said = counts

        yield show
        return
    with Live(console=console, refresh_per_second=2, transient=sys.stdout.isatty()) as drawn:
        yield lambda now: drawn.update(_drawn(name, now))


def _drawn(name: str, now: SweepState) -> Any:
    """The state as a table for a terminal: what moves first."""
    from rich.table import Table
    from rich.text import Text

    order = {"running": 0, "failed": 1, "interrupted": 2, "done": 3, "new": 4}
    runs = sorted(now.runs, key=lambda run: order[run.status])
    colours = {"done": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "new": "dim"}
    drawn = Table(title=name, caption=now.line(), title_justify="left", caption_justify="left", box=None)
    for column in COLUMNS:
        numeric = column in ("seed", "step", "loss", "held-out", "tokens/s")
        drawn.add_column(column, justify="right" if numeric else "left", overflow="ellipsis", no_wrap=True)
    for run in runs[:SHOWN]:
        row = run.row()
        cells = [f"{v:,.4g}" if isinstance(v, float) else "" if v is None else str(v) for v in row.values()]
        drawn.add_row(
            *(Text(cell, colours[run.status] if c == "status" else "") for c, cell in zip(row, cells, strict=True))
        )
    if len(runs) > SHOWN:
        drawn.add_row(f"and {len(runs) - SHOWN} more")
    return drawn
