"""How many breaks a broken neural scaling law needs: by AICc, and by foretelling the largest runs from the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from lm.analysis.scaling.fitting import Fit, fit
from lm.analysis.scaling.holdout import Holdout, split
from lm.analysis.scaling.laws.bnsl import BNSL
from lm.analysis.scaling.runs import RunTable
from lm.analysis.tables import TableError

PLACES = 12  # over the span, where one more break is tried


@dataclass(frozen=True)
class Breaks:
    """What was tried and what was chosen.

    table: a row a number of breaks, with parameters, objective, aicc, held_out (mean relative error on the runs of
    largest x, by a fit without them) and note. fits: to all runs, by number of breaks.
    """

    table: pd.DataFrame
    fits: Mapping[int, Fit]
    by: str

    @property
    def chosen(self) -> int:
        """The number of breaks with the least AICc or held-out error, the smaller one where they are equal."""
        return int(self.table.loc[self.table[self.by].idxmin(), "breaks"])

    @property
    def fit(self) -> Fit:
        return self.fits[self.chosen]

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence where the two ways to choose don't agree."""
        best = {way: int(self.table.loc[self.table[way].idxmin(), "breaks"]) for way in ("aicc", "held_out")}
        if best["aicc"] == best["held_out"]:
            return ()
        return (f"AICc chooses {best['aicc']} breaks, held-out error {best['held_out']}: the breaks aren't certain.",)


def choose_breaks(
    runs: RunTable,
    most: int = 3,
    *,
    x: str = "flops",
    target: str = "loss",
    by: Literal["aicc", "held_out"] = "aicc",
    largest: float = 0.2,
    **options: Any,
) -> Breaks:
    """Fits a BNSL with 0 to `most` breaks by least squares on log target, and chooses among them.

    largest: the share of runs, those of largest `x`, that is held out. options: of `fit`, such as starts.
    Numbers of breaks that the runs can't determine are left out, with a note in the table.
    """
    if by not in ("aicc", "held_out"):
        raise TableError(f"breaks are chosen by 'aicc' or 'held_out', not '{by}'")
    if not 0 < largest < 1:
        raise TableError(f"largest={largest} isn't a share of the runs between 0 and 1")
    values = runs.column(x)
    if np.ptp(values) == 0:
        raise TableError(f"all runs have {x}={values[0]:g}; a law over {x} needs more")
    train = values < np.quantile(values, 1 - largest)
    rows: list[dict[str, Any]] = []
    fits: dict[int, Fit] = {}
    tried: list[Holdout] = []
    for count in range(most + 1):
        law = BNSL(count, x, target, (float(values.min()), float(values.max())))
        row: dict[str, Any] = {"breaks": count, "parameters": len(law.parameters), "note": ""}
        try:
            fits[count] = fit(runs, law, "squared", begin=_one_more(fits.get(count - 1), law), **options)
            row |= {"objective": fits[count].objective, "aicc": aicc(fits[count])}
            begin = _one_more(tried[-1].fit if tried else None, law)
            tried.append(split(runs, train, f"the largest {x}", law=law, objective="squared", begin=begin, **options))
            row["held_out"] = tried[-1].mean_relative_error
        except TableError as error:
            row["note"] = str(error)
        rows.append({"objective": math.nan, "aicc": math.nan, "held_out": math.nan} | row)
    table = pd.DataFrame(rows)
    if not np.isfinite(table[by]).any():
        raise TableError(f"{len(runs)} runs are too few for a choice by {by}: {rows[0]['note'] or 'AICc has no value'}")
    return Breaks(table, fits, by)


def _one_more(fewer: Fit | None, law: BNSL) -> list[dict[str, float]]:
    """Starts with the breaks that were found and one more, of either sign, at places over the span."""
    if fewer is None or not law.breaks:
        return []
    new, places = law.breaks, np.geomspace(*law.span, PLACES + 2)[1:-1]
    made = [{f"c_{new}": c, f"d_{new}": float(d), f"f_{new}": 0.3} for d in places for c in (-0.1, 0.1)]
    return [{**fewer.params, **more} for more in made]


def aicc(fit: Fit) -> float:
    """Akaike's criterion for normal residuals, corrected for few runs (Hurvich and Tsai 1989); NaN for so few that it
    has no value. For fits by least squares: raises TableError for others. The residuals' deviation is a parameter."""
    if fit.how.kind != "squared":
        raise TableError(f"AICc is for least squares; this fit is by {fit.how}")
    n, k = len(fit.runs), len(fit.law.parameters) + 1
    if n <= k + 1:
        return math.nan
    return n * math.log(max(2 * fit.objective / n, 1e-300)) + 2 * k * n / (n - k - 1)
