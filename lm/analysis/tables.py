"""Reading tables of results: required columns, finished runs, numbers that may be missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lm.errors import UserError, unknown

Row = dict[str, Any]


class TableError(UserError, ValueError):
    """A table of results that can't be analysed as asked, with what to do instead."""


def need(table: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    """Raises TableError for the first column that `table` lacks."""
    for column in columns:
        if column not in table.columns:
            raise TableError(unknown(column, table.columns, f"the {what} table has no column"))


def has(table: pd.DataFrame | None, column: str) -> bool:
    """True if `table` has a number in `column` at all."""
    return table is not None and column in table.columns and bool(np.isfinite(numbers(table, column)).any())


def numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as floats; what isn't a number, or isn't there, is NaN."""
    if column not in table.columns:
        return np.full(len(table), math.nan)
    return np.array([number(x) for x in table[column].tolist()], dtype=float)


def number(x: object) -> float:
    """`x` as a float, NaN if it isn't a number."""
    try:
        return float(x)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def rows(table: pd.DataFrame) -> list[Row]:
    """The rows of a table as dicts, `arm` always text."""
    found: list[Row] = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    return [{**row, "arm": str(row["arm"])} if "arm" in row else row for row in found]


def arm_names(table: pd.DataFrame) -> list[str]:
    """The arms in the order of their first row."""
    return list(dict.fromkeys(str(a) for a in table["arm"].tolist()))


def of_arm(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    return table.loc[[str(a) == arm for a in table["arm"].tolist()]]


def finished(runs: pd.DataFrame, value: str) -> tuple[list[Row], list[str]]:
    """The runs that are done and have a finite `value`, and a sentence for every run left out.

    A table without a `status` holds finished runs only. Raises TableError where an arm has two finished runs
    of one seed: which of them counts isn't ours to choose.
    """
    need(runs, ["arm", "seed", value], "run")
    keep, seen = [], set()
    dropped: dict[tuple[str, str], list[str]] = {}
    for row in rows(runs):
        state, key = str(row.get("status", "done")), (row["arm"], row["seed"])
        if state == "done" and math.isfinite(number(row[value])):
            if key in seen:
                raise TableError(f"arm '{key[0]}' has more than one finished run of seed {key[1]}; keep one")
            seen.add(key)
            keep.append({**row, value: number(row[value])})
        else:
            why = f"status '{state}'" if state != "done" else f"{value} is missing or not finite"
            dropped.setdefault((key[0], why), []).append(str(key[1]))
    notes = [
        f"Left out: {arm}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: {why}."
        for (arm, why), seeds in dropped.items()
    ]
    return keep, notes


def median(values: Sequence[float] | np.ndarray) -> float:
    """The median of the finite values, NaN if there is none."""
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    return float(np.median(x)) if len(x) else math.nan
