"""The results of an experiment as the tables that `lm.analysis` reads: those of the store, for planned runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm.config import to_dict
from lm.sweep import store
from lm.sweep.experiment import Experiment
from lm.sweep.manifest import Entry
from lm.train.rows import read

if TYPE_CHECKING:
    import pandas as pd


def runs_table(entries: Sequence[Entry], experiment: Experiment) -> pd.DataFrame:
    """One row a run, finished or not; a number that isn't there is missing. Of what was varied, its axes."""
    varied = {path for entry in entries for path in entry.planned.point}
    dropped = varied - set(experiment.axes) - set(store.LABELS)
    return store.runs_table(_listed(entries)).drop(columns=["experiment", *dropped])


def curves_table(entries: Sequence[Entry]) -> pd.DataFrame:
    """One row for each row that a run has written so far, with every number in it."""
    columns = ["arm", "seed", "step", "tokens", "flops", "split", "loss", "bits_per_byte"]
    found = store.rows_table(_listed(entries))
    others = [name for name in found.columns if name not in {*columns, *store.LABELS}]
    return found.reindex(columns=[*columns, *others])


def details_table(entries: Sequence[Entry]) -> pd.DataFrame:
    """What measures found in full, at each run's last evaluation: arm, seed, step, split, and for each of its lists a
    row with name, index and value. Lists of lists are left out."""
    import pandas as pd

    rows = []
    for entry in entries:
        last = {row["split"]: row for row in read(entry.folder.details)}
        for split, row in last.items():
            base = {"arm": entry.planned.arm, "seed": entry.planned.seed, "step": row["step"], "split": split}
            for name, values in row.items():
                if isinstance(values, list) and not any(isinstance(x, list) for x in values):
                    rows += [base | {"name": name, "index": i, "value": x} for i, x in enumerate(values)]
    return pd.DataFrame(rows, columns=pd.Index(["arm", "seed", "step", "split", "name", "index", "value"]))


def _listed(entries: Sequence[Entry]) -> list[store.Listed]:
    return [store.Listed("", entry.row() | {"config": to_dict(entry.planned.run)}, entry.folder) for entry in entries]
