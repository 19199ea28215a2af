"""All that an experiment's runs measured, as curves: by series, seed and metric over training or over size."""

from __future__ import annotations

import fnmatch
import functools
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lm.analysis.emergence.mirage import exact_from_tokens
from lm.analysis.emergence.scores import detectable
from lm.analysis.tables import TableError, finished, need
from lm.errors import unknown

COLUMNS = ("series", "seed", "x", "step", "metric", "value")
NO_METRICS = {"arm", "seed", "step", "split", "experiment", "id", "tokens", "flops", "seconds", "tokens_per_second"}
Curves = dict[Hashable, tuple[np.ndarray, np.ndarray]]  # seed -> x and y, x rising
UNITS = {"step": "steps", "tokens": "tokens", "flops": "FLOPs", "size": "parameters"}  # of x, as sentences have it
Pairs = dict[Hashable, tuple[np.ndarray, np.ndarray, np.ndarray]]  # seed -> x, y and another y


@dataclass(frozen=True)
class Measured:
    """A table with the columns series, seed, x, step, metric ("heldout.loss", "answers.exact", ...) and value.
    over_sizes: x is the runs' size, and each value the end of a run. unit: what x counts."""

    frame: pd.DataFrame
    over_sizes: bool = False
    unit: str = "x"

    @functools.cached_property
    def series(self) -> list[str]:
        return list(dict.fromkeys(self.frame["series"].tolist()))

    @functools.cached_property
    def metrics(self) -> list[str]:
        return sorted(set(self.frame["metric"].tolist()))

    def matching(self, pattern: str) -> list[str]:
        """The metrics of a pattern such as "kinds.accuracy_*", by the numbers in them. Raises TableError for none."""
        found = fnmatch.filter(self.metrics, pattern)
        if not found:
            raise TableError(unknown(pattern, self.metrics, "nothing was measured that is called"))
        return sorted(found, key=lambda name: [int(p) if p.isdigit() else p for p in _parts(name)])

    def curves(self, metric: str, series: str) -> Curves:
        """Each seed's curve; {} where that series has no such metric. Raises TableError for unknown names."""
        if series not in self.series:
            raise TableError(unknown(series, self.series, "there is no series"))
        self.matching(metric)
        mine = self.frame.loc[(self.frame["metric"] == metric) & (self.frame["series"] == series)]
        found: Curves = {}
        for seed, part in mine.groupby("seed", sort=True):
            ordered = part.sort_values("x")
            found[seed] = ordered["x"].to_numpy(float), ordered["value"].to_numpy(float)
        return found

    def matrix(self, metric: str, series: str) -> tuple[np.ndarray, np.ndarray]:
        """The x that all seeds share [n], and their values [seeds, n]."""
        found = list(self.curves(metric, series).values())
        if not found:
            return np.zeros(0), np.zeros((0, 0))
        shared = sorted(set.intersection(*(set(x.tolist()) for x, _ in found)))
        return np.array(shared), np.array([y[np.isin(x, shared)] for x, y in found])

    def pairs(self, metric: str, other: str, series: str) -> Pairs:
        """Each seed's curves of two metrics at the x that both have; without seeds that have none."""
        ours, theirs = self.curves(metric, series), self.curves(other, series)
        found: Pairs = {}
        for seed in [s for s in ours if s in theirs]:
            x, mine, its = np.intersect1d(ours[seed][0], theirs[seed][0], return_indices=True)
            if len(x):
                found[seed] = x, ours[seed][1][mine], theirs[seed][1][its]
        return found

    def told_from_zero(self, metric: str, series: str) -> float:
        """Which share of exact answers so many examples tell from none; 0 for other metrics."""
        split, _, name = metric.rpartition(".")
        if name != "exact" or f"{split}.examples" not in self.metrics:
            return 0.0
        counts = self.ends(f"{split}.examples", series).values()
        return detectable(int(min(counts))) if counts else 0.0

    def ends(self, metric: str, series: str) -> dict[Hashable, float]:
        """Each seed's value at its largest x."""
        return {seed: float(y[-1]) for seed, (_, y) in self.curves(metric, series).items()}

    def passes(self, metric: str, series: str, level: float, rising: bool = True) -> dict[Hashable, float]:
        """Where each seed's curve first reaches `level`, from below or from above; infinite where it never does."""
        return {seed: passage(x, y, level, rising) for seed, (x, y) in self.curves(metric, series).items()}


def passage(x: np.ndarray, y: np.ndarray, level: float, rising: bool = True) -> float:
    """The first x at which y is at `level` or beyond; infinite where there is none."""
    beyond = np.flatnonzero(y >= level if rising else y <= level)
    return float(x[beyond[0]]) if len(beyond) else math.inf


def measured(
    runs: pd.DataFrame, curves: pd.DataFrame, over: str, places: Mapping[str, tuple[str, float | None]]
) -> Measured:
    """The rows of finished runs as curves; others end before what is to be seen.

    runs: arm, seed, status, heldout_loss. curves: a row for each row of a run, with arm, seed, step, split and any
    columns of numbers. over: "step", "tokens" or "flops" of training, or "size", where only a run's last values count.
    places: the series and, over sizes, the x of each arm.
    """
    need(curves, ["arm", "seed", "step", "split", *([] if over == "size" else [over])], "curve")
    rows: list[dict[str, Any]] = []
    done = {(row["arm"], row["seed"]) for row in finished(runs, "heldout_loss")[0] if row["arm"] in places}
    table = curves.loc[[pair in done for pair in zip(curves["arm"], curves["seed"], strict=True)]]
    for split, part in table.groupby("split", sort=False):
        columns = [str(c) for c in part.columns if c not in NO_METRICS and part[c].dtype.kind in "fiu"]
        for row in part.to_dict("records"):
            series, x = places[str(row["arm"])]
            base = {"series": series, "seed": row["seed"], "step": row["step"], "arm": row["arm"]}
            base["x"] = float(row[over]) if x is None else x
            values = ((name, float(row[name])) for name in columns)
            rows += [base | {"metric": f"{split}.{name}", "value": v} for name, v in values if math.isfinite(v)]
    frame = pd.DataFrame(rows, columns=pd.Index([*COLUMNS, "arm"]))
    if over == "size":
        last = frame.groupby(["arm", "seed", "metric"])["step"].transform("max")
        frame = frame.loc[frame["step"] == last]
    frame = _with_predicted(frame.drop(columns="arm").reset_index(drop=True))
    return Measured(frame, over_sizes=over == "size", unit=UNITS[over])


def _with_predicted(frame: pd.DataFrame) -> pd.DataFrame:
    """Beside each exact match, what the per-token rate of the same answers foretells of it (Schaeffer et al. 2023)."""
    made = []
    for split in [m.rsplit(".", 1)[0] for m in frame["metric"].unique() if m.endswith(".token_accuracy")]:
        keys = ["series", "seed", "x", "step"]
        rate, count = (
            frame.loc[frame["metric"] == f"{split}.{name}"].set_index(keys)["value"]
            for name in ("token_accuracy", "answer_tokens")
        )
        both = pd.concat([rate.rename("rate"), count.rename("count")], axis=1, join="inner").reset_index()
        foretold = exact_from_tokens(both["rate"].to_numpy(float), both["count"].to_numpy(float))
        made.append(both[keys].assign(metric=f"{split}.foretold", value=foretold))
    return pd.concat([frame, *made], ignore_index=True) if made else frame


def _parts(name: str) -> list[str]:
    """Letters and runs of digits apart, so that a_2 comes before a_10."""
    parts, digits = [""], False
    for letter in name:
        if letter.isdigit() != digits:
            parts.append("")
            digits = not digits
        parts[-1] += letter
    return parts
