"""Approach 1 of Hoffmann et al. 2022: the lower envelope of training curves. At each amount of compute the run with the
least loss so far tells the best size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lm.analysis.scaling.runs import RunTable
from lm.analysis.tables import TableError


@dataclass(frozen=True)
class Envelope:
    """points: flops, params, tokens, loss along the envelope; law: N_opt = k C^a as (a, log k)."""

    points: pd.DataFrame
    law: tuple[float, float]
    notes: tuple[str, ...]

    @property
    def exponent(self) -> float:
        """a in N_opt ~ C^a."""
        return self.law[0]


def envelope(curves: RunTable, points: int = 500, smooth: int = 1) -> Envelope:
    """The envelope of training curves (rows: points of runs, with a column `model` that says of which), and the power
    law through it, by least squares on logarithms.

    points: amounts of compute, evenly spaced in logarithm. smooth: points of a curve that are averaged (raw training
    losses are noisy, and the least of many is then too low). Only compute where the best run is neither the smallest
    nor the largest counts: there a size outside of the grid might be better.
    The learning rate of a run decays towards its own end, so a point in the middle of a curve is worse than a run of
    that length would have been: approach 2 and 3 don't have this fault.
    """
    labels = curves.clusters()
    flops, loss, params = (curves.column(name) for name in ("flops", "loss", "params"))
    if len(np.unique(labels)) == len(labels):
        raise TableError("an envelope needs training curves: several rows a run, and a column 'model' that names it")
    at = np.geomspace(flops.min(), flops.max(), points)
    best, of = np.full(points, np.inf), np.full(points, np.nan)
    for label in np.unique(labels):
        mine = labels == label
        order = np.argsort(flops[mine])
        x, y = np.log(flops[mine][order]), np.log(_averaged(loss[mine][order], smooth))
        if len(x) < 2:
            continue
        inside = (np.log(at) >= x[0]) & (np.log(at) <= x[-1])
        found = np.where(inside, np.exp(np.interp(np.log(at), x, y)), np.inf)
        of = np.where(found < best, params[mine][0], of)
        best = np.minimum(found, best)
    good = np.isfinite(best) & (of > params.min()) & (of < params.max())
    if len(np.unique(of[good])) < 2:
        raise TableError("the envelope touches fewer than two sizes inside the grid; train more sizes, or for longer")
    a, log_k = np.polyfit(np.log(at[good]), np.log(of[good]), 1)
    frame = pd.DataFrame({"flops": at, "params": of, "tokens": at / (6 * of), "loss": best, "used": good})
    notes = [f"The envelope touches {len(np.unique(of[good]))} sizes between the smallest and the largest."]
    if smooth == 1:
        notes.append("Losses are taken as they are: the envelope of noisy ones is too low.")
    return Envelope(frame.loc[np.isfinite(best)].reset_index(drop=True), (float(a), float(log_k)), tuple(notes))


def _averaged(loss: np.ndarray, over: int) -> np.ndarray:
    """A running mean that is shorter at the ends."""
    if over <= 1:
        return loss
    return np.asarray(pd.Series(loss).rolling(over, center=True, min_periods=1).mean())
