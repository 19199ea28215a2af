"""The results of an experiment as the tables that `lm.analysis` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lm.config import get
from lm.sweep.experiment import Experiment, Sweep, short
from lm.sweep.manifest import Entry
from lm.train.rows import read

if TYPE_CHECKING:
    import pandas as pd


def runs_table(entries: tuple[Entry, ...], experiment: Experiment) -> pd.DataFrame:
    """One row a run, finished or not; a number that isn't there is missing."""
    import pandas as pd

    axes = experiment.axes if isinstance(experiment, Sweep) else ()
    rows = []
    for entry in entries:
        row = entry.row()
        row.pop("point")
        if row["status"] == "done":
            row |= entry.folder.result()
        if row["status"] == "failed":
            row["error"] = entry.folder.failure()
        for path in axes:
            value = get(entry.planned.run, path)
            row[path] = value if isinstance(value, int | float | str) else short(value)
        rows.append(row)
    numbers = ("heldout_loss", "heldout_bpb", "tokens_per_second", "seconds")
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*(name for row in rows for name in row), *numbers])))


def curves_table(entries: tuple[Entry, ...]) -> pd.DataFrame:
    """One row for each row that a run has written so far."""
    import pandas as pd

    rows = []
    for entry in entries:
        if not entry.folder.rows.exists():
            continue
        run = entry.planned.run
        flops_a_token = run.flops / run.tokens
        for row in read(entry.folder.rows):
            labels = {"arm": entry.planned.arm, "seed": entry.planned.seed, "flops": row["tokens"] * flops_a_token}
            kept = ("step", "tokens", "split", "loss", "bits_per_byte")
            rows.append({**labels, **{name: row.get(name) for name in kept}})
    columns = ["arm", "seed", "step", "tokens", "flops", "split", "loss", "bits_per_byte"]
    return pd.DataFrame(rows, columns=columns)
