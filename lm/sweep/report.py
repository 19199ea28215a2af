"""From the results of an experiment to its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.sharding import Layout
from lm.sweep import study
from lm.sweep.counted import ngram_table
from lm.sweep.emergence import Emergence
from lm.sweep.experiment import Ablation
from lm.sweep.extrapolation import Extrapolation
from lm.sweep.file import ExperimentFile
from lm.sweep.manifest import Entry
from lm.sweep.search import Search
from lm.sweep.speeds import decode_table, with_training_speed
from lm.sweep.tables import curves_table, details_table, runs_table

if TYPE_CHECKING:
    from lm.analysis import Report


def report(file: ExperimentFile, entries: tuple[Entry, ...], folder: Path, layout: Layout) -> Report:
    """The report of what is done so far. `layout`: where training speed is measured."""
    experiment = file.experiment
    runs, curves = runs_table(entries, experiment), curves_table(entries)
    tables: dict[str, Any] = {"runs": runs, "curves": curves}
    if isinstance(experiment, Ablation):
        runs, notes = with_training_speed(runs, entries, folder / "speeds.jsonl", layout)
        decode, more = decode_table(experiment, entries, folder / "speeds.jsonl")
        counted = ngram_table(experiment, entries, folder / "ngrams.jsonl")
        notes = [experiment.match_note(), *notes, *more]
        tables |= {"runs": runs, "decode": decode, "counted": counted, "notes": notes}
    if isinstance(experiment, Emergence | Extrapolation):
        tables["details"] = details_table(entries)
    if isinstance(experiment, Search):
        tables |= study.tables(experiment, folder)
    title = file.name.replace("_", " ")
    return experiment.report(title=title, question=file.question, command=file.command, **tables)
