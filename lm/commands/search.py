"""What the commands of `lm.commands.sweep` do with a search, whose runs aren't known before."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from lm.commands.options import table
from lm.errors import UserError

if TYPE_CHECKING:
    from lm.commands.sweep import Plan, RunSweep, Submit
    from lm.sweep.file import ExperimentFile
    from lm.sweep.manifest import Entry


def ahead(found: ExperimentFile, folder: Path) -> list[Entry]:
    """An entry for every trial without a result, each as dear as a run of the space can be."""
    from lm.sweep import manifest, study
    from lm.sweep.experiment import Planned
    from lm.sweep.search import Search

    assert isinstance(found.experiment, Search)
    left = found.experiment.trials - study.finished(folder)
    if left <= 0:
        return []
    dearest = Planned(found.experiment.dearest(), "dearest", 0, {})
    return list(manifest.entries((dearest,), folder.parent)) * left


def plan(command: Plan, found: ExperimentFile, entries: tuple[Entry, ...], folder: Path) -> int:
    """Shows the trials so far, and what the others cost at most."""
    from lm.sharding import layout
    from lm.sweep import estimate
    from lm.train.progress import duration

    left = ahead(found, folder)
    if command.device:
        speed = estimate.stated(left, command.device, command.utilisation)
    else:
        speed = estimate.here(left, folder / "speeds.jsonl", layout(command.mesh))
    hours, flops = sum(map(speed.hours, left)), sum(entry.planned.run.flops for entry in left)
    beyond = estimate.over_budget(command.budget, hours, flops) if command.budget else None
    if beyond:
        raise UserError(f"this search may take {beyond}; make it smaller, or raise --budget")
    print(f"{found.name}: {found.question}\n")
    if entries:
        rows = [entry.row() | {"status": entry.status()} for entry in entries]
        print(table(rows, ("id", "arm", "status", "params", "flops")), end="\n\n")
    each = f" of {left[0].planned.run.flops:.3g} FLOPs" if left else ""
    print(
        f"{len(left)} trials to do{each} at most, {flops:.3g} FLOPs in all, {duration(3600 * hours)} one after another "
        f"({speed.source})"
    )
    return 0


def begin(command: RunSweep | Submit, found: ExperimentFile, folder: Path) -> None:
    """Makes what workers go by. Raises UserError where the folder has the trials of another search."""
    from lm import data
    from lm.sweep.search import Search
    from lm.sweep.study import Study

    assert isinstance(found.experiment, Search)
    if command.together == "always":
        raise UserError("trials of a search are trained one by one, since each depends on how others ended")
    Study(found.experiment, folder, data.fingerprint(found.experiment.base.data))


def seek(command: RunSweep, found: ExperimentFile, folder: Path) -> None:
    """Does the search in this process."""
    from lm.sweep.search import Search
    from lm.sweep.trials import train_trials

    assert isinstance(found.experiment, Search)
    if command.on != "here":
        raise UserError(f"a search isn't waited for; {found.to('submit')} --on {command.on} starts its workers")
    begin(command, found, folder)
    outcome = train_trials(found.experiment, folder, command.machine(), functools.partial(print, flush=True))
    print(f"{outcome.done} trials done now, {outcome.before} before")
    if outcome.failed:
        print(f"{len(outcome.failed)} trials failed; {found.to('retry')} lets them be tried again")
    if outcome.busy:
        print(f"{len(outcome.busy)} trials are held by another process; give the command again when it is done")
