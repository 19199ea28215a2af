"""The figures of an emergence experiment: every seed, with what theory gives and what can't be told from chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lm.analysis.curves import LABELS
from lm.analysis.emergence.measured import Measured
from lm.analysis.emergence.scores import detectable
from lm.analysis.style import BASELINE, DASHES, SOFT, arm_legend, arm_styles, canvas, log_if_wide, si_axis, styled

COLUMNS = 3
MANY = 4  # metrics of a panel from which on they are shades, from the first to the last
WHOLE = ("exact", "choice", "choice_normalised")  # shares of examples: what so few can't tell from 0 is shaded


class Panel(Protocol):
    """What is drawn in one panel: see `lm.sweep.emergence.Panel`."""

    @property
    def title(self) -> str: ...
    @property
    def metrics(self) -> tuple[str, ...]: ...
    @property
    def golds(self) -> tuple[str, ...]: ...
    @property
    def levels(self) -> Mapping[str, float] | None: ...
    @property
    def log(self) -> bool: ...


class Line(NamedTuple):
    series: str
    metric: str
    colour: Any
    dash: Any
    label: str | None


@styled
def panels_figure(measured: Measured, panels: Sequence[Panel], over: str) -> Figure:
    """A panel for each of `panels`: thin lines or dots are seeds, thick lines their medians."""
    rows, columns = -(-len(panels) // COLUMNS), min(len(panels), COLUMNS)
    figure = Figure(figsize=(4.9 * columns + 0.4, 3.9 * rows + 0.3), layout="constrained")
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(w_pad=0.08, h_pad=0.08)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, measured, panel, over)
    for axes in grid[len(panels) :]:
        axes.remove()
    styles = arm_styles(measured.series, measured.series[0] if measured.series else None)
    if len(measured.series) > 1:
        arm_legend(figure, styles, measured.series)
    return figure


def _draw(axes: Axes, measured: Measured, panel: Panel, over: str) -> None:
    lines, reach = _lines(measured, panel), []
    for line in lines:
        reach.append(_draw_line(axes, measured, line, over))
    shade, ends = list(_golds(measured, panel)), [x for one in reach for x in one]
    for k, (name, level) in enumerate(shade):
        axes.axhline(level, color=SOFT, linestyle=DASHES[1 + k % 3], linewidth=1.3, label=name, zorder=1)
    limit = _told_from_zero(measured, lines)
    if limit:
        axes.axhspan(-0.05, limit, color=SOFT, alpha=0.13, linewidth=0, label="can't be told from 0")
    axes.set_title(panel.title)
    axes.set_xlabel(LABELS.get(over, over))
    if over == "parameters":
        axes.set_xscale("log")
    else:
        log_if_wide(axes, "x", [x for x in ends if x > 0])
    si_axis(axes, "x")
    if panel.log:
        axes.set_yscale("log")
    elif lines and all(line.metric.rsplit(".", 1)[-1].startswith(("accuracy", *WHOLE)) for line in lines):
        axes.set_ylim(-0.04, 1.04)
    if shade or limit or any(line.label for line in lines):
        axes.legend(fontsize=9, handlelength=1.8, labelspacing=0.25, borderaxespad=0.2)


def _lines(measured: Measured, panel: Panel) -> list[Line]:
    """What a panel draws: colours tell series apart where there are several, else metrics."""
    metrics = [name for pattern in panel.metrics for name in measured.matching(pattern)]
    styles = arm_styles(measured.series, measured.series[0] if measured.series else None)
    found = []
    for series in measured.series:
        for k, metric in enumerate(metrics):
            if not measured.curves(metric, series):
                continue
            label = short(metric, metrics) if len(metrics) > 1 and series == measured.series[0] else None
            if len(metrics) >= MANY:
                colour, dash = matplotlib.colormaps["viridis"](0.9 * k / (len(metrics) - 1)), "-"
            elif len(measured.series) > 1:
                colour, dash = styles[series].colour, DASHES[k % len(DASHES)]
            else:
                colour, dash = ([BASELINE] + [s.colour for s in arm_styles(metrics).values()])[k], DASHES[k % 4]
            found.append(Line(series, metric, colour, dash, label))
    return found


def short(metric: str, metrics: Sequence[str]) -> str:
    """A metric's name without what all of a panel's metrics have in common."""
    split, name = metric.rsplit(".", 1)
    splits, names = {m.rsplit(".", 1)[0] for m in metrics}, {m.rsplit(".", 1)[1] for m in metrics}
    if len(splits) == 1:
        return name.replace("_", " ")
    return split if len(names) == 1 else f"{split} {name}".replace("_", " ")


def _draw_line(axes: Axes, measured: Measured, line: Line, over: str) -> list[float]:
    """Draws a line's seeds and their median; its x."""
    curves = measured.curves(line.metric, line.series)
    dots = over == "parameters"
    for x, y in curves.values() if len(curves) > 1 else ():
        if dots:
            axes.plot(x, y, "o", color=line.colour, markersize=4.5, alpha=0.5, markeredgewidth=0)
        else:
            axes.plot(x, y, color=line.colour, linestyle=line.dash, linewidth=0.8, alpha=0.4)
    x, values = measured.matrix(line.metric, line.series)
    if len(x):
        axes.plot(x, np.median(values, axis=0), color=line.colour, linestyle=line.dash, label=line.label)
    return x.tolist()


def _golds(measured: Measured, panel: Panel) -> list[tuple[str, float]]:
    found = []
    for metric in panel.golds:
        ends = [v for series in measured.series for v in measured.ends(metric, series).values()]
        found.append((metric.rsplit(".", 1)[-1].replace("_", " "), float(np.mean(ends))))
    return [*found, *(panel.levels or {}).items()]


def _told_from_zero(measured: Measured, lines: Sequence[Line]) -> float | None:
    """Below what share these numbers of examples can't tell an answer rate from 0; None where that isn't the matter."""
    counts = []
    for line in lines:
        split, name = line.metric.rsplit(".", 1)
        if name in WHOLE and f"{split}.examples" in measured.metrics:
            counts += measured.ends(f"{split}.examples", line.series).values()
    return detectable(int(min(counts))) if counts else None


@styled
def profile_figure(profile: pd.DataFrame, split: str) -> Figure:
    """A measure's lists by index, as they are at the end of each run: a line a name, thin ones are runs."""
    names = [str(n) for n in dict.fromkeys(profile["name"].tolist())]
    styles = arm_styles(names, names[0])
    figure, (axes,) = canvas(8.2, 4.8)
    for name in names:
        mine = profile.loc[profile["name"] == name]
        runs = [part.sort_values("index") for _, part in mine.groupby(["arm", "seed"])]
        style = styles[name]
        for part in runs:
            axes.plot(part["index"], part["value"], color=style.colour, linestyle=style.dash, linewidth=0.8, alpha=0.4)
        mean = mine.groupby("index")["value"].mean()
        axes.plot(mean.index.tolist(), mean.tolist(), color=style.colour, linestyle=style.dash, marker=style.marker)
    axes.set_xlabel("how many came before")
    axes.set_ylabel(split)
    axes.set_ylim(bottom=0)
    arm_legend(figure, {name.replace("_", " "): styles[name] for name in names}, [n.replace("_", " ") for n in names])
    return figure


@styled
def over_loss_figure(measured: Measured, metrics: Sequence[str], loss: str = "heldout.loss") -> Figure | None:
    """Metrics over the held-out loss of the same checkpoints instead of compute (Du et al. 2024): a task that emerges
    at one loss whatever the size shows as one curve. None where no point has both."""
    styles = arm_styles(measured.series, measured.series[0])
    figure, panels = canvas(4.9 * len(metrics) + 0.4, 4.2, len(metrics))
    drawn = False
    for axes, metric in zip(panels, metrics, strict=True):
        for series in measured.series:
            losses, values = measured.curves(loss, series), measured.curves(metric, series)
            pairs = [pair for s in losses.keys() & values.keys() for pair in _paired(losses[s], values[s])]
            if pairs:
                x, y = zip(*pairs, strict=True)
                axes.plot(x, y, "o", color=styles[series].colour, markersize=4, alpha=0.5, markeredgewidth=0)
                drawn = True
        log_if_wide(axes, "x", [line.get_xdata()[0] for line in axes.lines])
        axes.invert_xaxis()
        axes.set_xlabel("held-out loss (nats/token), falling")
        axes.set_title(metric)
    if drawn and len(measured.series) > 1:
        arm_legend(figure, styles, measured.series)
    return figure if drawn else None


def _paired(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> list[tuple[float, float]]:
    """The values of two curves at the x that both have."""
    other = dict(zip(*map(np.ndarray.tolist, b), strict=True))
    both = ((y, other.get(x, math.nan)) for x, y in zip(*map(np.ndarray.tolist, a), strict=True))
    return [pair for pair in both if math.isfinite(pair[1])]
