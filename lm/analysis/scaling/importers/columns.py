"""From a file's own columns to ours: names, units in headings, numbers, one row a loss."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lm.analysis.scaling.flops import Formula, training_flops
from lm.analysis.scaling.runs import RunTable, table
from lm.analysis.tables import TableError, numbers
from lm.errors import unknown

COUNTS = ("params", "params_non_embedding", "params_active", "tokens", "unique_tokens", "flops", "batch")
NUMBERS = (*COUNTS, "loss", "learning_rate", "width", "layers", "vocab", "context")
UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
UNIT = re.compile(r"[(\[]\s*([kmbgt]|1?e\+?\d+|10\^\d+)\s*[)\]]\s*$", re.IGNORECASE)  # "Model Size (B)"
TOLERANCE = 0.05  # of FLOPs that are said to be 6ND: sizes are often rounded


def runs(
    frame: pd.DataFrame,
    names: Mapping[str, str | None],
    loss: str | Sequence[str] | None,
    formula: Formula,
    path: str | Path,
) -> RunTable:
    """The runs of a frame that was read from `path` and has the lines of its rows as index.

    names: our names to the file's; None where the file has ours, or nothing.
    """
    given = {ours: theirs for ours, theirs in names.items() if theirs is not None}
    if loss is not None and isinstance(loss, str):
        given["loss"] = loss
    frame, notes = renamed(frame, given, path)
    if loss is not None and not isinstance(loss, str):
        frame, more = long(frame, loss, path)
        notes += more
    frame = checked(frame, path)
    if not {"params", "tokens", "flops", "loss"} & set(frame.columns):
        raise TableError(
            f"{path} has no column params, tokens, flops or loss; say which of its columns they are, "
            f"e.g. params={str(frame.columns[0])!r}; it has: {', '.join(map(str, frame.columns))}"
        )
    if formula == "6ND":
        _check_flops(frame, path)
    try:
        made = table(frame, formula, str(path))
    except TableError as error:
        raise TableError(f"{path}: {error}") from None
    if "tokens" not in frame.columns and "tokens" in made.frame.columns:
        notes.append("tokens are flops / (6 params)")
    return replace(made, notes=tuple(notes))


def renamed(frame: pd.DataFrame, names: Mapping[str, str], path: str | Path) -> tuple[pd.DataFrame, list[str]]:
    """The frame with the columns of `names` (ours to theirs) first, in units of one, then the others; and notes.

    One of their columns may be two of ours. Raises TableError for a column that isn't there, and where one of our
    names would be of two columns.
    """
    for ours, theirs in names.items():
        if theirs not in frame.columns:
            raise TableError(unknown(theirs, frame.columns, f"{path} has no column for {ours}, no"))
        if ours in frame.columns and ours not in names.values():
            raise TableError(
                f"{path} has two columns for {ours}: '{theirs}', as you say, and its own '{ours}'; "
                f"take that one, or give it another name: other_{ours}={ours!r}"
            )
    columns, notes = {}, []
    for ours, theirs in names.items():
        columns[ours] = frame[theirs]
        unit = UNIT.search(theirs)
        if ours in COUNTS and unit:
            columns[ours] = _numeric(frame, theirs, path) * _factor(unit.group(1))
            notes.append(f"{ours} is '{theirs}' times {_factor(unit.group(1)):g}")
    rest = {str(c): frame[c] for c in frame.columns if c not in names.values()}
    return pd.DataFrame({**columns, **rest}, index=frame.index), notes


def long(frame: pd.DataFrame, losses: Sequence[str], path: str | Path) -> tuple[pd.DataFrame, list[str]]:
    """One row for each of several losses of a run, by `evaluation`, the loss's heading. What a run has no loss for is
    left out, with a note. Rows of one run are one `model`, unless the file says what is."""
    for i, name in enumerate(losses):
        if name not in frame.columns:
            raise TableError(unknown(name, frame.columns, f"{path} has no column for loss, no"))
        if name in losses[:i]:
            raise TableError(f"the loss '{name}' is given twice")
    others = [c for c in frame.columns if c not in losses]
    for ours in ("loss", "evaluation"):
        if ours in others:
            raise TableError(f"{path} has its own column '{ours}'; give it another name: other_{ours}={ours!r}")
    if not losses:
        raise TableError("loss=[] names no column; name at least one")
    if "model" not in others:
        frame, others = frame.assign(model=frame.index), [*others, "model"]
    made = frame.melt(others, list(losses), "evaluation", "loss", ignore_index=False)
    there = made["loss"].notna().to_numpy()
    missing = len(made) - int(there.sum())
    notes = [f"{missing} of {len(made)} losses left out: they are missing"] if missing else []
    return made.loc[there], notes


def checked(frame: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """The frame with numbers in the columns where numbers belong; an empty cell is missing, other text an error."""
    return frame.assign(**{name: _numeric(frame, name, path) for name in NUMBERS if name in frame.columns})


def _numeric(frame: pd.DataFrame, name: str, path: str | Path) -> np.ndarray:
    if frame.dtypes[name].kind in "iuf":
        return frame[name].to_numpy()
    found = numbers(frame, name)
    bad = np.flatnonzero(np.isnan(found) & frame[name].notna().to_numpy())
    if len(bad):
        line, text = frame.index[bad[0]], frame[name].tolist()[bad[0]]
        raise TableError(f"{path} line {line} has the text {text!r} where {name} must be a number, e.g. 7e9")
    return found


def _factor(unit: str) -> float:
    unit = unit.lower()
    if unit in UNITS:
        return UNITS[unit]
    return 10.0 ** float(re.split(r"e|\^", unit)[1])


def _check_flops(frame: pd.DataFrame, path: str | Path) -> None:
    """Raises TableError where a file's FLOPs aren't 6ND: laws would be read with another formula than they had."""
    if not {"params", "tokens", "flops"} <= set(frame.columns):
        return
    columns = {name: numbers(frame, name) for name in ("params", "tokens", "flops")}
    by_formula = training_flops("6ND", columns)
    off = np.flatnonzero(np.abs(columns["flops"] / by_formula - 1) > TOLERANCE)
    if len(off):
        first = int(off[0])
        raise TableError(
            f"{path} line {frame.index[first]} has flops={columns['flops'][first]:g}, but 6 params tokens is "
            f"{by_formula[first]:g}; say how they were counted: formula='exact', or 'unknown'"
        )
