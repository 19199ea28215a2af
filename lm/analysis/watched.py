"""What layers say of themselves in training, such as the load of a router's experts."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import pandas as pd

from lm.analysis.paired import mean_interval
from lm.analysis.report import Table
from lm.analysis.tables import arm_names, has, need, number, numbers, rows
from lm.analysis.text import Column

LATE = 0.75  # of the training: what is shown is the mean over the rest


def watched_items(curves: pd.DataFrame | None) -> list[Table]:
    """The table of `watched`, where there is anything to watch."""
    if curves is None or not any(has(curves, name) for name in _names(curves)):
        return []
    frame = watched(curves)
    columns = [Column("arm", ("{arm}",))]
    for name in _names(curves):
        columns.append(Column(name, (f"{{{name}:.3f}} ± {{{name} sd:.3f}}", f"{{{name}:.3f}}")))
    caption = (
        "What layers say of themselves, over the last quarter of the training: mean ± standard deviation over seeds."
    )
    return [Table(name="watched", frame=frame, columns=tuple(columns), caption=caption)]


def watched(curves: pd.DataFrame) -> pd.DataFrame:
    """A row an arm: of each metric with a slash in its name (router/max_load) the mean over seeds of its mean over the
    last quarter of the training, and in "NAME sd" its standard deviation over seeds; missing where an arm has no such
    metric."""
    need(curves, ["arm", "seed", "split", "step"], "curve")
    begin = LATE * float(np.max(numbers(curves, "step")))
    late = [row for row in rows(curves) if row["split"] == "train" and row["step"] > begin]
    table = []
    for arm in arm_names(curves):
        line: dict[str, object] = {"arm": arm}
        for name in _names(curves):
            seeds: dict[Hashable, list[float]] = {}
            for row in late:
                if row["arm"] == arm and math.isfinite(number(row[name])):
                    seeds.setdefault(row["seed"], []).append(row[name])
            line[name], line[f"{name} sd"], _, _ = mean_interval([float(np.mean(x)) for x in seeds.values()])
        table.append(line)
    return pd.DataFrame(table)


def _names(curves: pd.DataFrame) -> list[str]:
    return [str(name) for name in curves.columns if "/" in str(name)]
