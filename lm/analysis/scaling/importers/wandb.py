"""Runs that were logged with Weights & Biases."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lm.analysis.scaling.flops import Formula
from lm.analysis.scaling.importers.columns import runs
from lm.analysis.scaling.importers.files import cells, objects
from lm.analysis.scaling.runs import RunTable
from lm.analysis.tables import TableError

NESTED = ("config", "summary", "summary_metrics", "summaryMetrics")
STRING_OR_NAME = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\bnan\b|\binf\b""")
LITERALS = {"nan": "None", "inf": "1e999"}  # of numbers that Python prints and can't read back


def read_wandb(
    path: str | Path,
    *,
    params: str | None = None,
    flops: str | None = None,
    tokens: str | None = None,
    loss: str | Sequence[str] | None = None,
    formula: Formula = "6ND",
    **more: str,
) -> RunTable:
    """Finished runs of a project, exported as a CSV of its runs table or as JSON lines, a run a line.

        read_wandb("runs.jsonl", params="config.model.size", tokens="summary.tokens", loss="summary.val/loss")

    What is nested, or a dict in one cell of a CSV, is named by its path. Arguments and errors are those of `read_csv`.
    Runs that have a state other than "finished" are left out, with a note.
    """
    path = Path(path)
    if path.suffix in (".jsonl", ".json", ".ndjson"):
        lines = objects(path)
        frame = pd.DataFrame([flat(value) for _, value in lines], index=pd.Index([line for line, _ in lines]))
    else:
        frame = _unfolded(cells(path), path)
    frame, notes = _finished(frame, path)
    names = {"params": params, "flops": flops, "tokens": tokens, **more}
    made = runs(frame, names, loss, formula, path)
    return replace(made, notes=(*notes, *made.notes))


def flat(value: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested dicts as one, with paths as keys. {"value": x, "desc": ..}, as configs are kept in files, is x."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and "value" in inner and set(inner) <= {"value", "desc"}:
            inner = inner["value"]
        name = f"{above}.{key}" if above else str(key)
        found |= flat(inner, name) if isinstance(inner, dict) else {name: inner}
    return found


def _unfolded(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table with columns for what its cells of configs and summaries hold."""
    for name in [c for c in NESTED if c in frame.columns]:
        if not all(str(cell).lstrip().startswith("{") for cell in frame[name].dropna().tolist()):
            continue  # a column that happens to have this name
        rows = [flat(_dict(cell, f"{path} line {line}"), name) for line, cell in frame[name].items()]
        frame = frame.drop(columns=name).join(pd.DataFrame(rows, index=frame.index))
    return frame


def _dict(cell: Any, where: str) -> dict[str, Any]:
    """The dict in a cell, as JSON or as Python prints it."""
    if not isinstance(cell, str):
        return {}
    try:
        return json.loads(cell)
    except ValueError:
        pass
    try:
        value = ast.literal_eval(STRING_OR_NAME.sub(lambda m: LITERALS.get(m.group(), m.group()), cell))
    except (ValueError, SyntaxError):
        value = None
    if not isinstance(value, dict):
        raise TableError(f"{where} holds no dict that can be read: {cell[:60]}")
    return value


def _finished(frame: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    state = next((c for c in frame.columns if str(c).casefold() == "state"), None)
    if state is None:
        return frame, []
    states = frame[state].tolist()
    keep = np.array([str(one) == "finished" for one in states])
    if not keep.any():
        raise TableError(f"none of the {len(frame)} runs in {path} is finished ('{state}' is never 'finished')")
    others = Counter(str(one) for one in states if str(one) != "finished")
    words = ", ".join(f"{count} {name}" for name, count in others.items())
    return frame.loc[keep], [f"{int((~keep).sum())} of {len(frame)} runs left out: {words}"] if words else []
