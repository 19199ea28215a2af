"""Approach 2 of Hoffmann et al. 2022: at each compute budget a parabola of the loss over the logarithm of the size; its
lowest point is the best size, and how that grows with the budget is the law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from lm.analysis.scaling.runs import RunTable, one_text
from lm.analysis.tables import TableError

TOGETHER = 1.2  # runs whose budgets lie within this factor are of one
EQUAL = 0.01  # logarithms of budgets that differ by less are equal
FEWEST = 4  # sizes at a budget: three would leave a parabola no error
RESAMPLES = 500
CENTRE = 0.8  # of half the range of sizes: an optimum beyond is seen from one side only


@dataclass(frozen=True)
class IsoFLOP:
    """Parabolas of budgets and the power laws through their optima.

    optima: a row a budget: C, N_opt, D_opt, loss, runs, warnings ("" for none), used (whether the power law goes
    through it), curvature (nats per squared e-fold of the size).
    """

    runs: RunTable
    labels: np.ndarray
    optima: pd.DataFrame
    law: tuple[float, float]  # N_opt = k C^a: (a, log k)
    notes: tuple[str, ...] = ()

    @property
    def exponent(self) -> float:
        """a in N_opt ~ C^a."""
        return self.law[0]

    def params_at(self, flops: float) -> float:
        """The best size for a budget by the power law."""
        return float(np.exp(self.law[1] + self.law[0] * np.log(flops)))

    @cached_property
    def _draws(self) -> np.ndarray:
        """a and log k of resamples of the runs inside each budget."""
        rng = np.random.default_rng(0)
        size, flops = np.log(self.runs.column("params")), np.log(self.runs.column("flops"))
        loss = self.runs.column("loss")
        used = [k for k, row in enumerate(self.optima.to_dict("records")) if row["used"]]
        found = []
        for _ in range(RESAMPLES):
            points = []
            for k in used:
                mine = np.flatnonzero(self.labels == k)
                drawn = rng.choice(mine, len(mine))
                if len(np.unique(size[drawn])) < 3:
                    continue
                best = vertex(size[drawn], loss[drawn], flops[drawn] - flops[mine].mean())
                if best is not None and size[mine].min() - 1 < best[0] < size[mine].max() + 1:
                    points.append((float(np.mean(flops[mine])), best[0]))
            if len(points) >= 2:
                x, y = np.array(points).T
                found.append(np.polyfit(x, y, 1))
        return np.array(found).reshape(-1, 2)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The bootstrap interval of the exponent: runs are drawn again inside each budget."""
        if len(self._draws) < 100:
            return float("nan"), float("nan")
        low, high = np.quantile(self._draws[:, 0], [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def parabola(self, budget: int, params: np.ndarray) -> np.ndarray:
        """The loss at sizes `params` by the parabola of one budget, numbered as in `optima`; NaN where it has none."""
        row = self.optima.iloc[budget]
        return row["loss"] + row["curvature"] / 2 * np.log(params / row["N_opt"]) ** 2


def isoflop(runs: RunTable, budgets_at: Sequence[float] | None = None, together: float = TOGETHER) -> IsoFLOP:
    """Fits a parabola at each budget and a power law through the optima.

    At least four runs whose FLOPs lie within the factor `together` are a budget; or `budgets_at` says the budgets, and
    runs within that factor of one belong to it. Runs of no budget are left out. An optimum beyond the sizes that
    were trained isn't used, and one near their edge carries a warning.
    Raises TableError where fewer than two budgets have an optimum.
    """
    one_text(runs)
    notes: list[str] = []
    labels, centres = budgets(runs, budgets_at, together)
    if (labels < 0).any():
        notes.append(f"{int((labels < 0).sum())} of {len(runs)} runs belong to no budget and are left out.")
    rows = [_optimum_of(runs, labels == k, centre) for k, centre in enumerate(centres)]
    optima = pd.DataFrame(rows)
    good = optima.loc[optima["used"]]
    if len(good) < 2:
        why = "; ".join(f"{row['C']:.2g}: {row['warnings']}" for row in rows if row["warnings"])
        raise TableError(f"only {len(good)} of {len(rows)} budgets have an optimum, a law needs 2 ({why})")
    a, log_k = np.polyfit(np.log(good["C"].to_numpy(float)), np.log(good["N_opt"].to_numpy(float)), 1)
    if len(good) == 2:
        notes.append("Two budgets make a line through two points: the exponent has no error of its own.")
    return IsoFLOP(runs, labels, optima, (float(a), float(log_k)), tuple(notes))


def budgets(
    runs: RunTable, at: Sequence[float] | None = None, together: float = TOGETHER
) -> tuple[np.ndarray, np.ndarray]:
    """A number for each run, that of its budget from 0 (-1 for none), and the budgets' FLOPs."""
    flops = np.log(runs.column("flops"))
    if at is not None:
        centres = np.sort(np.asarray(at, float))
        distance = np.abs(flops[:, None] - np.log(centres))
        labels = np.where(distance.min(1) < np.log(together), distance.argmin(1), -1)
        return labels, centres
    free, found = np.ones(len(flops), bool), []
    while free.any():  # the densest window first: in published tables budgets lie among runs of other lengths
        inside = free & (flops >= flops[:, None]) & (flops <= flops[:, None] + np.log(together))
        inside[~free] = False
        mine = inside[int(np.argmax(inside.sum(1)))]
        if mine.sum() < (FEWEST if found else 1):
            break
        found.append(mine)
        free &= ~mine
    found.sort(key=lambda mine: flops[mine].mean())
    labels = np.full(len(flops), -1)
    for k, mine in enumerate(found):
        labels[mine] = k
    return labels, np.array([np.exp(flops[mine].mean()) for mine in found])


def vertex(size: np.ndarray, loss: np.ndarray, flops: np.ndarray) -> tuple[float, float, float] | None:
    """Where the least-squares parabola of the loss over log sizes is lowest, its value there and its curvature; None if
    it opens downwards.

    flops: logarithms of the budgets, relative to their centre. Where they aren't quite equal, and runs are enough, the
    loss may also change with them in proportion: a run with a tenth more compute is no better size.
    """
    centre = size.mean()
    terms = [np.ones_like(size), size - centre, (size - centre) ** 2]
    if np.ptp(flops) > EQUAL and len(size) >= FEWEST + 2:
        terms.append(flops)
    c, b, a = np.linalg.lstsq(np.stack(terms, axis=1), loss, rcond=None)[0][:3]
    if not a > 0:
        return None
    return float(centre - b / (2 * a)), float(c - b * b / (4 * a)), float(2 * a)


def _optimum_of(runs: RunTable, mine: np.ndarray, flops: float) -> dict[str, object]:
    """A row of `optima`."""
    size, loss = np.log(runs.column("params")[mine]), runs.column("loss")[mine]
    row: dict[str, object] = {"C": flops, "N_opt": np.nan, "D_opt": np.nan, "loss": np.nan, "runs": int(mine.sum())}
    row |= {"warnings": "", "used": False, "curvature": np.nan}
    sizes = len(np.unique(np.round(size, 2)))
    if sizes < FEWEST:
        return row | {"warnings": f"{sizes} sizes, a parabola needs {FEWEST}"}
    best = vertex(size, loss, np.log(runs.column("flops")[mine] / flops))
    if best is None:
        return row | {"warnings": "the loss has no minimum: it opens downwards"}
    at, lowest, curvature = best
    params = float(np.exp(at))
    counted = 1.0  # FLOPs that aren't 6 x params x tokens: what the runs of this budget say of them
    if "tokens" in runs.frame.columns:
        ratio = 6 * runs.column("params") * runs.column("tokens") / runs.column("flops")
        counted = float(np.median(ratio[mine]))
    row |= {"N_opt": params, "D_opt": counted * flops / (6 * params), "loss": lowest, "curvature": curvature}
    if not size.min() <= at <= size.max():
        side = "smaller" if at < size.min() else "larger"
        return row | {"warnings": f"the minimum is beyond the grid: train {side} sizes"}
    half = (size.max() - size.min()) / 2
    off = abs(at - (size.max() + size.min()) / 2) / half
    side = "smaller" if at < (size.max() + size.min()) / 2 else "larger"
    warning = f"the minimum is off-centre, near the grid's edge: train {side} sizes" if off > CENTRE else ""
    return row | {"warnings": warning, "used": True}
