"""The figures of an emergence experiment: every seed, with what theory gives and what can't be told from chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lm.analysis.curves import LABELS
from lm.analysis.emergence.measured import Measured
from lm.analysis.style import (
    BASELINE,
    COLOURS,
    DASHES,
    SOFT,
    ArmStyle,
    arm_legend,
    arm_styles,
    canvas,
    log_if_wide,
    si_axis,
    styled,
    wrapped,
)
from lm.analysis.tables import TableError

COLUMNS = 3
MANY = 4  # metrics of a panel from which on they are shades, from the first to the last
SHARES = ("accuracy", "exact", "foretold", "token_accuracy", "choice")  # drawn from 0 to 1
FEW = 30  # points of a line that has marks
DECADES = 100  # a logarithmic axis that is shorter has ticks at 2 and 5, too


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
    @property
    def series(self) -> tuple[str, ...]: ...


class Line(NamedTuple):
    series: str
    metric: str
    style: ArmStyle
    label: str | None


@styled
def panels_figure(measured: Measured, panels: Sequence[Panel], over: str) -> Figure:
    """A panel for each of `panels`: thin lines or dots are seeds, thick lines their medians."""
    figure, grid = _grid(len(panels))
    styles = _styles(measured)
    for axes, panel in zip(grid, panels, strict=True):
        _draw(axes, measured, panel, over, styles)
    if len(styles) > 1:
        arm_legend(figure, styles, measured.series)
    return figure


def _grid(count: int, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    rows, columns = -(-count // COLUMNS), min(count, COLUMNS)
    figure = Figure(figsize=(4.9 * columns + 0.4, 3.9 * rows + 0.3), layout="constrained")
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(w_pad=0.08, h_pad=0.08)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel().tolist()
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def _styles(measured: Measured) -> dict[str, ArmStyle]:
    return arm_styles(measured.series, measured.series[0] if measured.series else None)


def _draw(axes: Axes, measured: Measured, panel: Panel, over: str, styles: Mapping[str, ArmStyle]) -> None:
    metrics, unknown = _known(measured, panel.metrics)
    golds, more = _known(measured, panel.golds)
    lines = _lines(measured, metrics, {name: style for name, style in styles.items() if name in shown(panel, styles)})
    x = [x for line in lines for x in _draw_line(axes, measured, line, over)]
    axes.set_title(panel.title)
    axes.set_xlabel(LABELS.get(over, over))
    if panel.log:
        _log_axis(axes, "y")
    elif lines and all(line.metric.rsplit(".", 1)[-1].startswith(SHARES) for line in lines):
        axes.set_ylim(-0.04, 1.04)
    levels = [*_golds(measured, golds), *(panel.levels or {}).items()]
    for k, (name, level) in enumerate(levels):
        axes.axhline(level, color=SOFT, linestyle=DASHES[1 + k % 3], linewidth=1.3, label=name, zorder=1)
    limit = _told_from_zero(measured, lines)
    if limit and not panel.log:
        axes.axhspan(-0.05, limit, color=SOFT, alpha=0.13, linewidth=0, label="can't be told from 0")
    if lines:
        _x_axis(axes, over, x)
    else:
        axes.set(xticks=[], yticks=[])
    if axes.get_legend_handles_labels()[1]:
        columns = 2 if len(metrics) >= MANY else 1
        axes.legend(fontsize=9, handlelength=1.8, labelspacing=0.25, borderaxespad=0.2, ncols=columns)
    if unknown or more:
        said = f"not measured: {', '.join([*unknown, *more])}"
        axes.text(0.5, 0.5, wrapped(said, 36), transform=axes.transAxes, ha="center", va="center", color=SOFT)


def shown(panel: Panel, series: Iterable[str]) -> list[str]:
    """Those of `series` that a panel is about."""
    return [name for name in series if not panel.series or name in panel.series]


def _known(measured: Measured, patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The metrics of patterns, and the patterns that have none: a panel says so, and the others are drawn."""
    found, unknown = [], []
    for pattern in patterns:
        try:
            found += measured.matching(pattern)
        except TableError:
            unknown.append(pattern)
    return found, unknown


def _lines(measured: Measured, metrics: Sequence[str], styles: Mapping[str, ArmStyle]) -> list[Line]:
    """What a panel draws. Colours tell series apart and dashes metrics, where there are several of both; but of many
    metrics they are the other way round."""
    found: list[Line] = []
    for series, arm in styles.items():
        for k, metric in enumerate(metrics):
            if not measured.curves(metric, series):
                continue
            style = arm
            if len(metrics) >= MANY:
                shade = matplotlib.colormaps["viridis"](0.9 * k / (len(metrics) - 1))
                style = ArmStyle(to_hex(shade), arm.marker, arm.dash)
            elif len(styles) > 1 and len(metrics) > 1:
                style = ArmStyle(arm.colour, arm.marker, DASHES[k])
            elif len(metrics) > 1:
                style = ArmStyle((BASELINE, *COLOURS)[k], arm.marker, DASHES[k])
            first = len(metrics) > 1 and metric not in {line.metric for line in found}
            label = short(metric, metrics) if first else None
            found.append(Line(series, metric, style, label))
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
    curves, style = measured.curves(line.metric, line.series), line.style
    for x, y in curves.values():
        if over == "parameters":
            axes.plot(x, y, style.marker, color=style.colour, markersize=4.5, alpha=0.5, markeredgewidth=0)
        elif len(curves) > 1:
            axes.plot(x, y, color=style.colour, linestyle=style.dash, linewidth=0.8, alpha=0.4)
    x, values = measured.matrix(line.metric, line.series)
    if len(x):
        axes.plot(x, np.median(values, axis=0), color=style.colour, linestyle=style.dash, label=line.label)
    return x.tolist()


def _x_axis(axes: Axes, over: str, x: Sequence[float]) -> None:
    if over == "parameters":
        axes.set_xscale("log")
    else:
        log_if_wide(axes, "x", x)
    if axes.get_xscale() == "log":
        _log_axis(axes, "x")
    si_axis(axes, "x")


def _log_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis with few ticks, at plain numbers."""
    axes.set_xscale("log") if which == "x" else axes.set_yscale("log")
    axis, (low, high) = (axes.xaxis, axes.get_xlim()) if which == "x" else (axes.yaxis, axes.get_ylim())
    axis.set_major_locator(LogLocator(subs=(1.0,) if max(low, high) / min(low, high) > DECADES else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _golds(measured: Measured, metrics: Sequence[str]) -> list[tuple[str, float]]:
    """The mean of each over all runs, at their ends."""
    found = []
    for metric in metrics:
        ends = [v for series in measured.series for v in measured.ends(metric, series).values()]
        found.append((metric.rsplit(".", 1)[-1].replace("_", " "), float(np.mean(ends))))
    return found


def _told_from_zero(measured: Measured, lines: Sequence[Line]) -> float | None:
    """Below what share exact answers can't be told from none; None where none are drawn."""
    return max((measured.told_from_zero(line.metric, line.series) for line in lines), default=0.0) or None


@styled
def profile_figure(profile: pd.DataFrame, split: str) -> Figure:
    """A measure's lists by index, as they are at the end of each run: a panel an arm, a line a name, thin ones are
    runs. Beside losses or errors, shares of right answers are left out: they have another unit."""
    names = list(dict.fromkeys(str(n) for n in profile["name"].tolist()))
    names = [name for name in names if not name.startswith(SHARES)] or names
    arms = list(dict.fromkeys(profile["arm"].tolist()))
    styles = {name.replace("_", " "): style for name, style in arm_styles(names, names[0]).items()}
    figure, grid = _grid(len(arms), sharey=True)
    shown = profile.loc[profile["name"].isin(names)]
    log_if_wide(grid[0], "y", shown["value"].to_numpy(float))
    for axes, arm in zip(grid, arms, strict=True):
        for name, style in zip(names, styles.values(), strict=True):
            mine = shown.loc[(shown["name"] == name) & (shown["arm"] == arm)]
            for _, part in mine.groupby("seed") if mine["seed"].nunique() > 1 else ():
                axes.plot(part["index"], part["value"], color=style.colour, linewidth=0.8, alpha=0.4)
            mean = mine.groupby("index")["value"].mean()
            marker = style.marker if len(mean) <= FEW else ""
            axes.plot(mean.index, mean, color=style.colour, linestyle=style.dash, marker=marker, markersize=4.5)
        axes.set_xlabel("how many came before")
        axes.set_title(arm)
    grid[0].set_ylabel(split)
    if grid[0].get_yscale() == "log":
        _log_axis(grid[0], "y")
    arm_legend(figure, styles, list(styles))
    return figure


@styled
def over_loss_figure(measured: Measured, metrics: Sequence[str], loss: str = "heldout.loss") -> Figure | None:
    """Metrics over the held-out loss of the same checkpoints instead of compute (Du et al. 2024): a task that emerges
    at one loss whatever the size shows as one curve. None where no point has both."""
    metrics, _ = _known(measured, metrics)
    if not metrics or loss not in measured.metrics:
        return None
    styles, drawn = _styles(measured), []
    figure, panels = canvas(4.9 * len(metrics) + 0.4, 4.2, len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        for series, style in styles.items():
            pairs = list(measured.pairs(loss, metric, series).values())
            if pairs:
                x, y = (np.concatenate([pair[k] for pair in pairs]) for k in (1, 2))
                axes.plot(x, y, style.marker, color=style.colour, markersize=4.5, alpha=0.5, markeredgewidth=0)
                drawn += x.tolist()
        axes.set_xlabel("held-out loss (nats/token), falling")
        axes.set_title(metric)
    for axes in panels:
        log_if_wide(axes, "x", drawn)
        if axes.get_xscale() == "log":
            _log_axis(axes, "x")
        axes.invert_xaxis()
    if drawn and len(styles) > 1:
        arm_legend(figure, styles, measured.series)
    return figure if drawn else None
