"""Loss over the compute that was spent on it, with models that count as lines beside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lm.analysis.curves import LABELS, arm_curves
from lm.analysis.figures import UNITS
from lm.analysis.paired import mean_interval
from lm.analysis.report import Plot, Table
from lm.analysis.style import SOFT, ArmStyle, canvas, line_labels, si_axis, styled
from lm.analysis.tables import has, numbers, rows
from lm.analysis.text import Column

SHOWN = 20.0  # the figure shows so large a factor of compute: before, all lines fall steeply from ln V


def compute_items(
    curves: pd.DataFrame | None, counted: pd.DataFrame | None, styles: Mapping[str, ArmStyle]
) -> list[str | Table | Plot]:
    """The figure, and the table of the models that count. Nothing where there are no losses over FLOPs."""
    if curves is None or not has(curves, "flops") or not has(curves, "bits_per_byte"):
        return []
    table = None if counted is None else count_table(counted)
    caption = "Held-out loss over training FLOPs: seeds as thin lines, their mean as a thick one."
    figure = loss_over_flops(curves, table, styles)
    items: list[str | Table | Plot] = [Plot(name="loss_over_flops", figure=figure, caption=caption)]
    if table is not None:
        spent = "What they were fitted on, how many n-grams they keep, and processor seconds of the fit."
        items.append(Table(name="counted", frame=table, columns=COLUMNS, caption=f"n-gram models. {spent}"))
    return items


COLUMNS = (
    Column("n-gram model", ("order {order:d}",)),
    Column("bits/byte", ("{bits_per_byte:.4f} ± {bits_per_byte_sd:.4f}", "{bits_per_byte:.4f}")),
    Column("n", ("{n:d}",)),
    Column("tokens read", ("{tokens:,.0f}",)),
    Column("n-grams", ("{ngrams:,.0f}",)),
    Column("fit (s)", ("{seconds:.1f}",)),
)


def count_table(counted: pd.DataFrame) -> pd.DataFrame:
    """A row an order: the mean and spread of bits_per_byte over seeds, and the means of what it took."""
    table = []
    for order in sorted(set(counted["order"].tolist())):
        mine = counted.loc[counted["order"] == order]
        mean, sd, _, _ = mean_interval(numbers(mine, "bits_per_byte"))
        taken = {name: float(numbers(mine, name).mean()) for name in ("tokens", "ngrams", "seconds")}
        table.append({"order": int(order), "n": len(mine), "bits_per_byte": mean, "bits_per_byte_sd": sd, **taken})
    return pd.DataFrame(table)


@styled
def loss_over_flops(curves: pd.DataFrame, counted: pd.DataFrame | None, styles: Mapping[str, ArmStyle]) -> Figure:
    """Held-out bits per byte over training FLOPs, an arm a line; n-gram models, which cost next to none, as levels."""
    arms = arm_curves(curves.assign(loss=curves["bits_per_byte"]), "heldout", "flops")
    figure, (axes,) = canvas(9.6, 5.6)
    ends, seen = [], []
    last = max(float(curve.x[-1]) for curve in arms.values())
    for arm, curve in arms.items():
        style = styles[arm]
        for x, y in curve.seeds.values():
            axes.plot(x, y, color=style.colour, linewidth=0.7, alpha=0.35)
        axes.plot(curve.x, curve.mean, color=style.colour, linestyle=style.dash)
        seen += curve.mean[curve.x >= last / SHOWN].tolist()
        ends.append((last, float(curve.mean[-1]), arm, style.colour))
    levels = [] if counted is None else rows(counted)
    for level in levels:
        y = level["bits_per_byte"]
        axes.axhline(y, color=SOFT, linewidth=1.1, linestyle=(0, (1, 2)), zorder=1)
        said = f"{level['order']}-gram, {level['seconds']:.1f} s"
        axes.annotate(said, (0.005, y), xycoords=axes.get_yaxis_transform(), va="bottom", color=SOFT, fontsize=10)
    low, high = min(seen + [level["bits_per_byte"] for level in levels]), float(np.max(seen))
    axes.set_ylim(low - 0.06 * (high - low), high + 0.04 * (high - low))
    axes.set_xscale("log")
    axes.set_xlim(last / SHOWN, last)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    si_axis(axes, "x")
    axes.set_xlabel(LABELS["flops"])
    axes.set_ylabel(UNITS["heldout_bpb"])
    si_axis(axes, "y")
    line_labels(figure, axes, ends)
    return figure
