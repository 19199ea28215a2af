"""From the results of an experiment to its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lm.sharding import Layout
from lm.sweep.experiment import Ablation, Sweep
from lm.sweep.file import ExperimentFile
from lm.sweep.manifest import Entry
from lm.sweep.speeds import decode_table, with_training_speed
from lm.sweep.tables import curves_table, runs_table

if TYPE_CHECKING:
    from lm.analysis import Report


def report(file: ExperimentFile, entries: tuple[Entry, ...], folder: Path, layout: Layout) -> Report:
    """The report of what is done so far. `layout`: where training speed is measured."""
    from lm.analysis import ablation_report, sweep_report

    experiment = file.experiment
    runs, curves = runs_table(entries, experiment), curves_table(entries)
    title = file.name.replace("_", " ")
    if isinstance(experiment, Sweep):
        axes = list(experiment.axes)
        return sweep_report(
            title=title, question=file.question, command=file.command, axes=axes, runs=runs, curves=curves
        )
    assert isinstance(experiment, Ablation)
    runs, notes = with_training_speed(runs, entries, folder / "speeds.jsonl", layout)
    decode, more = decode_table(experiment, entries, folder / "speeds.jsonl")
    return ablation_report(
        title=title,
        question=file.question,
        command=file.command,
        baseline=experiment.baseline,
        runs=runs,
        curves=curves,
        decode=decode,
        notes=[experiment.match_note(), *notes, *more],
    )
