"""Scores of BIG-bench (Srivastava et al. 2022), whose task folders hold a file for each model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lm.analysis.scaling.importers.files import Paths, documents
from lm.analysis.scaling.runs import RunTable, table
from lm.analysis.tables import TableError, number

SIZES = {
    "params": "total_params",
    "params_non_embedding": "non_embedding_params",
    "params_flop_matched": "flop_matched_non_embedding_params",
}
COLUMNS = (
    "family", "model", *SIZES, "task", "subtask", "shots", "metric", "value", "preferred", "low", "high",
)  # fmt: skip


def read_bigbench(paths: Paths) -> RunTable:
    """One row for each metric of each score in `scores_*.json` files, or in folders of them.

    family, model ("family name"), params (all), params_non_embedding, params_flop_matched (of a dense model of the same
    FLOPs), task, subtask, shots, metric, value, preferred (whether the task's authors chose this metric), low and high
    (their values for chance and for perfect answers). Numbers that a file doesn't state are missing. Where a task has
    subtasks, the files have rows of their aggregate, too: choose by `subtask` or `metric`.
    Raises TableError for files that aren't such scores and for two different values of one score.
    """
    found, notes = documents(paths, "scores", "score file of BIG-bench")
    skipped: list[str] = []
    rows = [row for path, document in found for row in _scores(document, path, skipped)]
    if not rows:
        raise TableError(f"{found[0][0]} has no score that is a number")
    if skipped:
        names = ", ".join(dict.fromkeys(skipped))
        notes.append(f"{len(skipped)} entries left out: they aren't numbers ({names})")
    frame = pd.DataFrame(rows, columns=pd.Index(COLUMNS)).drop_duplicates(ignore_index=True)
    if len(frame) < len(rows):
        notes.append(f"{len(rows) - len(frame)} of {len(rows)} scores left out: the same ones again")
    clash = frame[frame.duplicated(["model", "task", "subtask", "shots", "metric"])]
    if len(clash):
        one = clash.iloc[0]
        raise TableError(
            f"there are different values of {one['metric']} of {one['model']} in {one['task']} ({one['subtask']}, "
            f"{one['shots']:g} shots) in {found[0][0].parent}; keep one of the files"
        )
    names = [str(path) for path, _ in found]
    made = table(frame, "unknown", names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more")
    return replace(made, notes=tuple(notes))


def _scores(document: dict[str, Any], path: Path, skipped: list[str]) -> Iterator[dict[str, Any]]:
    model = document.get("model")
    if not isinstance(model, dict) or not model.get("model_name"):
        raise TableError(f"{path} doesn't say which model it is of (no model.model_name)")
    family = str(model.get("model_family") or "")
    about = {
        "family": family,
        "model": f"{family} {model['model_name']}".strip(),
        **{ours: number(model.get(theirs)) for ours, theirs in SIZES.items()},
    }
    for score in document["scores"]:
        subtask = str(score.get("subtask_description") or "")
        here = {
            **about,
            "task": _task(document, path, subtask),
            "subtask": subtask,
            "shots": number(score.get("number_of_shots")),
            "low": number(score.get("low_score")),
            "high": number(score.get("high_score")),
        }
        for metric, value in (score.get("score_dict") or {}).items():
            if isinstance(value, int | float) or value is None:
                preferred = metric == score.get("preferred_score")
                yield {**here, "metric": metric, "value": number(value), "preferred": preferred}
            else:
                skipped.append(metric)


def _task(document: dict[str, Any], path: Path, subtask: str) -> str:
    """The task's name: as stated, that of the folder above results/, or what a subtask is named after."""
    stated = document.get("task_name") or document.get("task")
    if isinstance(stated, dict):
        stated = stated.get("task_name") or stated.get("name")
    if not stated and path.absolute().parent.name == "results":
        stated = path.absolute().parent.parent.name
    return str(stated or subtask.partition(":")[0])
