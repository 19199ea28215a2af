"""The table that every fit reads: one row a run (for curves, one a point of a run), columns by one set of names.

    params                parameters, all of them unless the table says otherwise
    params_non_embedding  without token tables and output head
    params_active         those that a token meets, where experts make a difference
    tokens                training tokens seen, repetitions counted
    unique_tokens         tokens seen without repetitions
    flops                 training FLOPs, by `RunTable.formula`
    loss                  nats a token on held-out text
    learning_rate, batch (tokens a step), schedule, seed
    evaluation            on which text the loss was measured: losses on different text aren't one law
    model                 what is one model: rows of one are resampled together

and for laws of them experts, granularity, weight_bits, activation_bits, cache_bits, bits, added_loss, bits_per_byte,
accuracy, error (`LAWS[name].columns` says what a law reads).

Other columns are kept under their own names, and laws and filters may use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lm.analysis.scaling.flops import Formula, training_flops
from lm.analysis.tables import TableError, numbers
from lm.errors import unknown


@dataclass(frozen=True)
class RunTable:
    """Runs to fit. formula: how `flops` was counted. notes: what was done to the table so far."""

    frame: pd.DataFrame
    formula: Formula = "6ND"
    source: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def column(self, name: str) -> np.ndarray:
        """A column as floats. Raises TableError if it isn't there, or a run has no number in it."""
        if name not in self.frame.columns:
            raise TableError(unknown(name, self.frame.columns, "the runs have no column"))
        values = numbers(self.frame, name)
        missing = ~np.isfinite(values)
        if missing.any():
            raise TableError(
                f"{int(missing.sum())} of {len(self)} runs have no number in '{name}' "
                f"(row {int(np.flatnonzero(missing)[0])} first); leave them out"
            )
        return values

    def where(self, keep: np.ndarray, note: str) -> RunTable:
        """The runs where `keep` is true; `note` says which in the report."""
        keep = np.asarray(keep, bool)
        left = int((~keep).sum())
        notes = (*self.notes, f"{left} of {len(self)} runs left out: {note}") if left else self.notes
        return replace(self, frame=self.frame.loc[keep].reset_index(drop=True), notes=notes)

    def select(self, **equal: Any) -> RunTable:
        """The runs with these values, e.g. `select(train_data="c4", seed=0)`."""
        keep = np.ones(len(self), bool)
        for name, value in equal.items():
            if name not in self.frame.columns:
                raise TableError(unknown(name, self.frame.columns, "the runs have no column"))
            keep &= (self.frame[name] == value).to_numpy()
        return self.where(keep, "not " + ", ".join(f"{k}={v}" for k, v in equal.items()))

    def without_highest_losses(self, count: int) -> RunTable:
        """Without the runs of the `count` highest losses, which are often those that had hardly begun."""
        order = np.argsort(-self.column("loss"), kind="stable")
        keep = np.ones(len(self), bool)
        keep[order[:count]] = False
        return self.where(keep, f"the {count} highest losses")

    def clusters(self) -> np.ndarray:
        """A number for each row: rows of one `model` have one. Without that column every row is its own."""
        if "model" not in self.frame.columns:
            return np.arange(len(self))
        return pd.factorize(self.frame["model"], use_na_sentinel=False)[0]


def table(frame: pd.DataFrame, formula: Formula = "6ND", source: str = "") -> RunTable:
    """Checks a frame that has our names, and fills in what follows from the rest: tokens, FLOPs.

    Raises TableError for sizes that aren't positive and for a column that is needed.
    """
    frame = frame.reset_index(drop=True)
    columns: Mapping[str, np.ndarray] = {str(c): numbers(frame, c) for c in frame.columns}
    if "params" in columns and "tokens" not in columns and "flops" in columns:
        if formula not in ("6ND", "exact", "unknown"):
            raise TableError(f"tokens can't be found from FLOPs by '{formula}'; give a tokens column")
        frame = frame.assign(tokens=columns["flops"] / (6 * columns["params"]))
    elif "flops" not in columns and {"params", "tokens"} <= set(columns):
        frame = frame.assign(flops=training_flops(formula, columns))
    for name in ("params", "tokens", "flops", "unique_tokens", "loss"):
        if name in frame.columns:
            values = numbers(frame, name)
            bad = np.flatnonzero(values <= 0)
            if len(bad):
                raise TableError(f"row {int(bad[0])} has {name}={values[bad[0]]:g}; it must be positive")
    return RunTable(frame, formula, source)


def one_text(runs: RunTable) -> None:
    """Raises TableError where the losses are of several evaluation sets: no law holds for them together."""
    texts = sorted(map(str, set(runs.frame["evaluation"]))) if "evaluation" in runs.frame.columns else []
    if len(texts) > 1:
        raise TableError(
            f"the losses are of {len(texts)} evaluation sets ({', '.join(texts[:4])}); select one: "
            f"runs.select(evaluation={texts[0]!r})"
        )
