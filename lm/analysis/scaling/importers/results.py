"""Our own results as runs to fit."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lm import paths
from lm.analysis.scaling.runs import RunTable, table
from lm.analysis.tables import TableError, need, numbers

if TYPE_CHECKING:
    from lm.sweep.store import Listed


def read_results(source: str | Path, evaluation: str = "heldout") -> RunTable:
    """The finished runs of a folder of results, of one experiment, or of a manifest (see `lm.sweep.store`).

    loss: the result's `<evaluation>_loss`, nats a token. flops: exact, as the cost model counts them. batch: tokens a
    step. unique_tokens: where the runs' data is in this machine's cache. model: the run's id. Columns of the
    experiment (arm, what it varied) are kept. Runs whose held-out text, context or number of rows differ have
    different values of `evaluation`. What was left out is in the notes.
    Raises StoreError where there are no results, TableError where no run is finished.
    """
    from lm.sweep.store import runs_table

    listed, notes = _once(source)
    frame = runs_table(listed)
    value = f"{evaluation}_loss"
    need(frame, [value], "results")
    keep, left = _finished(frame, value, source)
    frame = frame.loc[keep].reset_index(drop=True)
    listed = [run for run, kept in zip(listed, keep, strict=True) if kept]
    ours = {"model": "config.model", "id": "model", "non_embedding": "params_non_embedding", value: "loss"}
    frame = frame.rename(columns=lambda name: ours.get(name, name))  # a whole model may be what was varied
    frame, more = _with_configs(frame, listed, evaluation)
    frame = frame.drop(columns=[c for c in ("status", "error") if c in frame.columns])
    return replace(table(frame, "exact", str(source)), notes=(*notes, *left, *more))


def read_curves(source: str | Path) -> RunTable:
    """One row for each held-out evaluation of each finished run: tokens and flops so far, and the loss there.

    The other columns are those of the run (see `read_results`; unique_tokens isn't there, since it changes along a
    run), `step` and `final` are of the row. model: the run's id, so that points of one run are resampled together.
    """
    from lm.sweep.store import rows_table

    runs = read_results(source)
    listed, _ = _once(source)
    points = rows_table([run for run in listed if run.row["id"] in set(runs.frame["model"])], "heldout")
    good = np.isfinite(numbers(points, "loss"))
    points, left = points.loc[good], int((~good).sum())
    labels = runs.frame.drop(columns=["tokens", "flops", "loss", "unique_tokens"], errors="ignore")
    found = points.filter(["id", "step", "tokens", "flops", "loss"]).assign(model=points["id"]).drop(columns="id")
    found = found.merge(labels, on="model", how="left")
    found["final"] = found["step"] == found.groupby("model")["step"].transform("max")
    notes = [n for n in runs.notes if not n.startswith("unique_tokens")]
    notes += [f"{left} of {len(good)} evaluations left out: their loss isn't finite"] if left else []
    return replace(table(found, "exact", str(source)), notes=tuple(notes))


def _once(source: str | Path) -> tuple[list[Listed], list[str]]:
    """The runs of a source, one that two experiments list only once."""
    from lm.sweep.store import listed

    every = listed(source)
    first: dict[str, Listed] = {}
    for run in every:
        first.setdefault(run.row["id"], run)
    once = list(first.values())
    more = len(every) - len(once)
    return once, [f"{more} of {len(every)} listings left out: the same runs, listed again"] if more else []


def _finished(frame: pd.DataFrame, value: str, source: str | Path) -> tuple[np.ndarray, list[str]]:
    """Which runs are done and have a finite `value`, and a note about the others."""
    done, finite = (frame["status"] == "done").to_numpy(), np.isfinite(numbers(frame, value))
    keep = done & finite
    states = Counter(frame["status"][~done].tolist())
    words = [f"{count} {state}" for state, count in states.items()]
    words += [f"{int((done & ~finite).sum())} without a finite {value}"] if (done & ~finite).any() else []
    if not keep.any():
        raise TableError(f"none of the {len(frame)} runs in {source} is finished ({', '.join(words)}); do them first")
    return keep, [f"{int((~keep).sum())} of {len(frame)} runs left out: {', '.join(words)}"] if words else []


def _with_configs(frame: pd.DataFrame, listed: Sequence[Listed], evaluation: str) -> tuple[pd.DataFrame, list[str]]:
    """The columns that are found in the runs' configs, and those of their data."""
    configs = [_config(run) for run in listed]
    data = [run.row.get("data") or run.folder.data() for run in listed]
    columns: dict[str, list[Any]] = {
        "learning_rate": [_at(c, "train", "optimizer", "learning_rate") for c in configs],
        "batch": [(_at(c, "data", "batch") or math.nan) * (_at(c, "data", "length") or math.nan) for c in configs],
        "schedule": [_at(c, "train", "schedule", "type") for c in configs],
        "width": [_at(c, "model", "width") for c in configs],
        "layers": [_at(c, "model", "layers") for c in configs],
        "vocab": [_at(c, "model", "vocab") for c in configs],
        "context": [_at(c, "data", "length") for c in configs],
    }
    known = {name: values for name, values in columns.items() if any(v is not None and v == v for v in values)}
    frame = frame.assign(**known, evaluation=_evaluations(configs, data, evaluation))
    sizes = np.array([_train_tokens(found) for found in data], float)
    unknown = int(np.isnan(sizes).sum())
    notes = []
    if unknown < len(sizes):
        frame["unique_tokens"] = np.minimum(sizes, numbers(frame, "tokens"))
    if unknown:
        notes.append(f"unique_tokens of {unknown} of {len(sizes)} runs isn't known: their data isn't in the cache here")
    return frame, notes


def _evaluations(configs: Sequence[dict[str, Any]], data: Sequence[str], evaluation: str) -> list[str]:
    """On what each run's loss was measured: `evaluation`, and what of text, context and rows isn't the same for all."""
    parts = {
        "data": [found[:8] for found in data],
        "context": [_at(c, "data", "length") for c in configs],
        "rows": [_at(c, "record", "heldout_rows") for c in configs],
    }
    differ = {name: values for name, values in parts.items() if len(set(values)) > 1}
    return [
        " ".join([evaluation, *(f"{name}={values[i]}" for name, values in differ.items())]) for i in range(len(configs))
    ]


def _config(run: Listed) -> dict[str, Any]:
    """A run's config as plain values: from the manifest, or, where an older one lists none, from its folder."""
    return run.row.get("config") or json.loads((run.folder.path / "config.json").read_text())


def _at(config: Any, *keys: str) -> Any:
    """The value at a path of a config; None where its components have no such field."""
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def _train_tokens(fingerprint: str) -> float:
    """Tokens of the training split, NaN if the data isn't in the cache."""
    try:
        meta = json.loads((paths.cache_dir("data") / fingerprint / "meta.json").read_text())
        return float(meta["train"]["tokens"])
    except (OSError, ValueError, KeyError):
        return math.nan
