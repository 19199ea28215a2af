"""Loss over tokens: the seeds of an arm, and their mean where it is one."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lm.analysis.style import ArmStyle, arm_legend, arm_styles, canvas, log_if_wide, si_axis, styled
from lm.analysis.tables import TableError, arm_names, need, number, rows
from lm.errors import unknown

LABELS = {"tokens": "training tokens", "flops": "training FLOPs", "step": "step"}


@dataclass(frozen=True)
class Curve:
    """Loss of one arm: `x` and `mean` over the complete seeds, and every seed's own points."""

    x: np.ndarray
    mean: np.ndarray
    seeds: dict[Hashable, tuple[np.ndarray, np.ndarray]]
    complete: tuple[Hashable, ...]


def arm_curves(curves: pd.DataFrame, split: str, x: str = "tokens") -> dict[str, Curve]:
    """The curve of each arm in `split` ("train" or "heldout").

    A seed that stopped before the arm's last point isn't in the mean, which would jump where it ends; the mean
    is taken at the points that all other seeds share.
    """
    need(curves, ["arm", "seed", "split", "loss", x], "curve")
    points: dict[str, dict[Hashable, dict[float, float]]] = {arm: {} for arm in arm_names(curves)}
    for row in rows(curves):
        at, loss = number(row[x]), number(row["loss"])
        if row["split"] == split and math.isfinite(at) and math.isfinite(loss):
            points[row["arm"]].setdefault(row["seed"], {})[at] = loss
    return {arm: _curve(seeds) for arm, seeds in points.items() if seeds}


def _curve(seeds: dict[Hashable, dict[float, float]]) -> Curve:
    last = max(max(p) for p in seeds.values())
    complete = tuple(s for s, p in seeds.items() if max(p) == last)
    shared = sorted(set.intersection(*(set(seeds[s]) for s in complete)))
    mean = np.array([[seeds[s][at] for at in shared] for s in complete]).mean(axis=0)
    lines = {s: (np.array(sorted(p)), np.array([p[at] for at in sorted(p)])) for s, p in seeds.items()}
    return Curve(np.array(shared), mean, lines, complete)


def _x_axis(axes: Axes, x: str, values: np.ndarray, log_x: bool | None) -> None:
    if log_x is None:
        log_if_wide(axes, "x", values[values > 0])
    elif log_x:
        axes.set_xscale("log")
    axes.set_xlabel(LABELS.get(x, x))
    si_axis(axes, "x")


@styled
def loss_curves(
    curves: pd.DataFrame,
    styles: Mapping[str, ArmStyle] | None = None,
    x: str = "tokens",
    log_x: bool | None = None,
) -> Figure:
    """Training and held-out loss over `x`: the mean over seeds as a line, single seeds as thin ones.

    `log_x` None takes a logarithmic axis where the points span a factor of 20 or more.
    """
    found = {split: arm_curves(curves, split, x) for split in ("train", "heldout")}
    found = {split: arms for split, arms in found.items() if arms}
    if not found:
        raise TableError("the curve table has no finite loss with split 'train' or 'heldout'")
    styles = styles or arm_styles(arm_names(curves))
    figure, panels = canvas(5.2 * max(len(found), 1.4), 4.8, len(found), sharey=True)
    for axes, (split, arms) in zip(panels, found.items(), strict=True):
        _draw(axes, arms, styles)
        _x_axis(axes, x, np.concatenate([c.x for c in arms.values()]), log_x)
        axes.set_title({"train": "training loss", "heldout": "held-out loss"}[split])
    panels[0].set_ylabel("loss (nats/token)")
    arm_legend(figure, styles, [a for a in styles if any(a in arms for arms in found.values())])
    return figure


def _draw(axes: Axes, arms: dict[str, Curve], styles: Mapping[str, ArmStyle]) -> None:
    for arm, curve in arms.items():
        style = styles[arm]
        several = len(curve.seeds) > 1
        for xs, ys in curve.seeds.values() if several else ():
            axes.plot(xs, ys, color=style.colour, linewidth=0.7, alpha=0.35)
        few = len(curve.x) <= 30
        axes.plot(
            curve.x, curve.mean, color=style.colour, linestyle=style.dash,
            marker=style.marker if few else "", markersize=4.5,
        )  # fmt: skip


@styled
def curve_differences(
    curves: pd.DataFrame,
    baseline: str,
    styles: Mapping[str, ArmStyle] | None = None,
    x: str = "tokens",
    log_x: bool | None = None,
    split: str = "heldout",
) -> Figure | None:
    """Loss of each arm minus the baseline's over `x`, inside each seed, then averaged.

    This is where arms whose loss curves lie on each other come apart. None where no arm shares points and
    seeds with the baseline.
    """
    arms = arm_curves(curves, split, x)
    if baseline not in arms:
        raise TableError(unknown(baseline, arms, f"the curve table has no arm with {split} loss called"))
    styles = styles or arm_styles(arm_names(curves), baseline)
    differences = {a: d for a, c in arms.items() if a != baseline and (d := _minus(c, arms[baseline])) is not None}
    if not differences:
        return None
    figure, (axes,) = canvas(8.2, 4.6)
    axes.axhline(0, color=styles[baseline].colour, linewidth=1.4)
    _draw(axes, differences, styles)
    _x_axis(axes, x, np.concatenate([d.x for d in differences.values()]), log_x)
    late = [y for d in differences.values() for xs, ys in d.seeds.values() for y in ys[xs >= 0.1 * xs.max()]]
    low, high = min(*late, 0.0), max(*late, 0.0)
    if high > low:  # the first steps' differences can be many times the last ones'
        axes.set_ylim(low - 0.12 * (high - low), high + 0.12 * (high - low))
    axes.set_ylabel(f"{'held-out' if split == 'heldout' else 'training'} loss\nminus {baseline} (nats/token)")
    arm_legend(figure, styles, [baseline, *differences])
    return figure


def _minus(curve: Curve, base: Curve) -> Curve | None:
    common: dict[Hashable, dict[float, float]] = {}
    for seed in curve.seeds:
        if seed in base.seeds:
            mine, other = (dict(zip(*map(np.ndarray.tolist, c.seeds[seed]), strict=True)) for c in (curve, base))
            shared = {at: mine[at] - other[at] for at in mine if at in other}
            if shared:
                common[seed] = shared
    return _curve(common) if common else None
