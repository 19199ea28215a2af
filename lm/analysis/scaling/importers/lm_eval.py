"""Scores of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lm.analysis.scaling.flops import Formula
from lm.analysis.scaling.importers.columns import checked
from lm.analysis.scaling.importers.files import Paths, cells, documents
from lm.analysis.scaling.runs import RunTable, table
from lm.analysis.tables import TableError, number
from lm.errors import unknown

COLUMNS = ("model", "task", "group", "shots", "metric", "filter", "value", "stderr", "n")
KEY = ["model", "task", "shots", "metric", "filter"]
NO_METRICS = ("sample_len", "sample_count", "samples")  # numbers beside a task's metrics that aren't any
Sizes = Mapping[str, float] | str | Path


def read_lm_eval(paths: Paths, sizes: Sizes | None = None, formula: Formula = "6ND") -> RunTable:
    """One row for each score of results files (`results_*.json`) or of folders of them, of versions 0.3 and 0.4.

    model ("name@revision" where a revision was evaluated), task, group (whether it is the mean of other tasks), shots,
    metric, filter ("none" where it has none), value, stderr and n (documents scored); missing where not stated.
    sizes: params of each model, or a CSV file with a column `model` and any of ours (params, tokens, flops, ...). Its
    models are found with their revision, without, or by the last part of their name.
    Raises TableError for files that aren't such results, a model that `sizes` lacks, and for two different scores of
    one model in one task.
    """
    found, notes = documents(paths, "results", "results file of lm-evaluation-harness")
    rows = [{**row, "file": str(path)} for path, document in found for row in _scores(document, path)]
    if not rows:
        raise TableError(f"{found[0][0]} has no score of any task")
    frame, more = _once(pd.DataFrame(rows, columns=pd.Index([*COLUMNS, "file"])))
    notes += more
    if sizes is not None:
        frame = _sized(frame, sizes)
    names = [str(path) for path, _ in found]
    made = table(frame, formula, names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more")
    return replace(made, notes=tuple(notes))


def _scores(document: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    model = _model(document, path)
    groups = set(document.get("groups") or {}) | {g for g, of in (document.get("group_subtasks") or {}).items() if of}
    for task, scores in document["results"].items():
        current = any("," in key for key in scores)  # version 0.4 names the filter of each metric
        for key, value in scores.items():
            metric, _, filtered = key.partition(",")
            if _ignored(metric, value) or (current and not filtered):
                continue
            beside = f"{metric}_stderr,{filtered}" if filtered else f"{metric}_stderr"
            yield {
                "model": model,
                "task": task,
                "group": task in groups,
                "shots": _shots(document, task),
                "metric": metric,
                "filter": filtered or "none",
                "value": number(value),
                "stderr": number(scores.get(beside)),
                "n": _documents(document, task),
            }


def _ignored(metric: str, value: Any) -> bool:
    """What is beside the metrics of a task: standard errors, counts, names. A metric that is null is a missing one."""
    text = isinstance(value, str | bool | list | dict) and value != "N/A"
    return text or metric.endswith("_stderr") or metric in NO_METRICS or not metric.strip()


def _model(document: dict[str, Any], path: Path) -> str:
    config = document.get("config") or {}
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        arguments = dict(part.strip().split("=", 1) for part in arguments.split(",") if "=" in part)
    name = document.get("model_name") or arguments.get("pretrained") or arguments.get("model") or config.get("model")
    if not name:
        raise TableError(f"{path} doesn't say which model it is of (no model_name, and no model_args in its config)")
    revision = arguments.get("revision")
    return f"{name}@{revision}" if revision and revision != "main" else str(name)


def _shots(document: dict[str, Any], task: str) -> float:
    said = (document.get("n-shot") or {}).get(task)
    said = said if said is not None else ((document.get("configs") or {}).get(task) or {}).get("num_fewshot")
    return number(said if said is not None else (document.get("config") or {}).get("num_fewshot"))


def _documents(document: dict[str, Any], task: str) -> float:
    counts = (document.get("n-samples") or {}).get(task)
    said = counts.get("effective") if isinstance(counts, dict) else counts
    return number(said if said is not None else document["results"][task].get("sample_len"))


def _once(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Each score once, though two files may have it. Raises TableError if they differ: we can't know which counts."""
    values = frame.groupby(KEY, dropna=False)["value"]
    clash = values.transform("nunique", dropna=False).to_numpy() > 1
    if clash.any():
        first = frame[clash].iloc[0]
        same = (frame[KEY].astype(str) == first[KEY].astype(str)).all(axis=1)
        files = list(dict.fromkeys(frame.loc[same, "file"]))
        raise TableError(
            f"{' and '.join(files[:2])} have different scores of {first['model']} in {first['task']} "
            f"({first['metric']}); keep one of the files"
        )
    again = frame.duplicated(KEY).to_numpy()
    left = int(again.sum())
    notes = [f"{left} of {len(frame)} scores left out: the same ones in another file"] if left else []
    return frame.loc[~again].drop(columns="file").reset_index(drop=True), notes


def _sized(frame: pd.DataFrame, sizes: Sizes) -> pd.DataFrame:
    """The scores with the columns that `sizes` has for their models."""
    if isinstance(sizes, Mapping):
        known = pd.DataFrame({"params": list(sizes.values())}, index=pd.Index(list(map(str, sizes))))
        source = "the sizes"
    else:
        read = checked(cells(sizes), sizes)
        source = str(sizes)
        if "model" not in read.columns:
            raise TableError(unknown("model", read.columns, f"{source} has no column"))
        known = read.assign(model=read["model"].astype(str)).set_index("model")
    twice = known.index[known.index.duplicated()]
    if len(twice):
        raise TableError(f"{source} has two rows of the model '{twice[0]}'")
    both = [c for c in known.columns if c in frame.columns]
    if both:
        raise TableError(f"{source} has a column '{both[0]}', which scores have, too; rename it there")
    names = {model: _find(model, known.index, source) for model in dict.fromkeys(frame["model"])}
    joined = known.loc[[names[model] for model in frame["model"]]].reset_index(drop=True)
    return pd.concat([frame, joined], axis=1)


def _find(model: str, known: pd.Index, source: str) -> str:
    plain = model.partition("@")[0]
    short = plain.rstrip("/").rpartition("/")[2]
    revision = model[len(plain) :]
    for name in (model, short + revision, plain, short):
        if name in known:
            return name
    raise TableError(unknown(model, known, f"{source} has no row of the model"))
