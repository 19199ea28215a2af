"""How well a law fitted on small runs foretells large ones, which is what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lm.analysis.scaling.fitting import Fit, fit
from lm.analysis.scaling.law import Law
from lm.analysis.scaling.runs import RunTable
from lm.analysis.tables import TableError


@dataclass(frozen=True)
class Holdout:
    """A law fitted on some runs and tried on others."""

    fit: Fit
    tested: RunTable

    @property
    def predicted(self) -> np.ndarray:
        return self.fit.predict(**{name: self.tested.column(name) for name in self.fit.law.columns})

    @property
    def relative_errors(self) -> np.ndarray:
        """predicted / observed - 1 of each run that was held out."""
        return self.predicted / self.tested.column(self.fit.law.target) - 1

    @property
    def mean_relative_error(self) -> float:
        """The mean size of the relative errors, as a fraction."""
        return float(np.mean(np.abs(self.relative_errors)))

    @property
    def bias(self) -> float:
        """The mean relative error with its sign: above 0 the law foretells too much loss."""
        return float(np.mean(self.relative_errors))


def split(runs: RunTable, train: np.ndarray, note: str, **options: Any) -> Holdout:
    """Fits on the runs where `train` is true and tries the others."""
    if not 0 < int(train.sum()) < len(runs):
        raise TableError(f"{note}: {int(train.sum())} of {len(runs)} runs to fit on; both sides need some")
    return Holdout(fit(runs.where(train, note), **options), runs.where(~train, "those fitted on"))


def holdout(runs: RunTable, law: str | Law = "chinchilla", *, max_flops: float, **options: Any) -> Holdout:
    """Fits on runs below `max_flops` and tries the rest. options: of `fit`."""
    return split(runs, runs.column("flops") < max_flops, f"flops of {max_flops:g} and more", law=law, **options)


def leave_largest_out(runs: RunTable, law: str | Law = "chinchilla", *, count: int = 1, **options: Any) -> Holdout:
    """Fits without the runs of the `count` largest sizes and tries them."""
    sizes = np.unique(runs.column("params"))
    if count >= len(sizes):
        raise TableError(f"there are only {len(sizes)} sizes; {count} can't be left out")
    small = runs.column("params") < sizes[-count]
    return split(runs, small, f"sizes of {sizes[-count]:g} and more", law=law, **options)


def rolling(
    runs: RunTable, law: str | Law = "chinchilla", *, factors: tuple[float, ...] = (3, 10, 30, 100), **options: Any
) -> pd.DataFrame:
    """How errors grow with the distance: for each factor, fits on the runs with less than the largest budget divided
    by it, tried on all others. Columns: factor, fitted, tested, mean_relative_error, bias, note."""
    flops = runs.column("flops")
    found = []
    for factor in factors:
        row: dict[str, Any] = {"factor": float(factor), "fitted": int((flops < flops.max() / factor).sum())}
        row["tested"] = len(runs) - row["fitted"]
        try:
            one = holdout(runs, law, max_flops=float(flops.max() / factor), **options)
            row |= {"mean_relative_error": one.mean_relative_error, "bias": one.bias, "note": ""}
        except TableError as error:
            row |= {"mean_relative_error": np.nan, "bias": np.nan, "note": str(error)}
        found.append(row)
    return pd.DataFrame(found)


def leave_one_budget_out(runs: RunTable, law: str | Law = "chinchilla", **options: Any) -> pd.DataFrame:
    """Each compute budget foretold by the others. Columns: flops, runs, mean_relative_error, bias."""
    from lm.analysis.scaling.isoflop import budgets

    labels, centres = budgets(runs)
    found = []
    for k, centre in enumerate(centres):
        one = split(runs, labels != k, f"the budget of {centre:.3g} FLOPs", law=law, **options)
        row = {"flops": centre, "runs": len(one.tested)}
        found.append(row | {"mean_relative_error": one.mean_relative_error, "bias": one.bias})
    return pd.DataFrame(found)
