"""The results of an experiment as the tables that `lm.analysis` reads: those of the store, for planned runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm.config import to_dict
from lm.sweep import store
from lm.sweep.experiment import Experiment
from lm.sweep.manifest import Entry

if TYPE_CHECKING:
    import pandas as pd


def runs_table(entries: Sequence[Entry], experiment: Experiment) -> pd.DataFrame:
    """One row a run, finished or not; a number that isn't there is missing. Of what was varied, its axes."""
    varied = {path for entry in entries for path in entry.planned.point}
    dropped = varied - set(experiment.axes) - set(store.LABELS)
    return store.runs_table(_listed(entries)).drop(columns=["experiment", *dropped])


def curves_table(entries: Sequence[Entry]) -> pd.DataFrame:
    """One row for each row that a run has written so far."""
    columns = ["arm", "seed", "step", "tokens", "flops", "split", "loss", "bits_per_byte"]
    return store.rows_table(_listed(entries)).reindex(columns=columns)


def _listed(entries: Sequence[Entry]) -> list[store.Listed]:
    return [store.Listed("", entry.row() | {"config": to_dict(entry.planned.run)}, entry.folder) for entry in entries]
