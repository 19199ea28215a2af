"""One look for all figures: an arm keeps its colour, marker and line everywhere, and labels don't overlap.

The colours are those of Okabe and Ito (2008), "Color universal design", with the baseline in near-black and a
darker yellow; markers and dashes differ too, so that no reading depends on colour alone.
"""

from __future__ import annotations

import functools
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from lm.analysis.text import si

P = ParamSpec("P")
R = TypeVar("R")

BASELINE = "#2b2b2b"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A08A00")
MARKERS = ("s", "^", "D", "v", "P", "X", "p")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))
SOFT = "#6b6f73"

STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 12,
    "axes.titlesize": 12.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e7e8",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.markersize": 7,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True)
class ArmStyle:
    colour: str
    marker: str
    dash: Any


def arm_styles(arms: Sequence[str], baseline: str | None = None) -> dict[str, ArmStyle]:
    """How each arm is drawn, in every figure. Make it once from the arms of the run table."""
    others = [a for a in arms if a != baseline]
    n = len(COLOURS)
    styles = {
        arm: ArmStyle(COLOURS[i % n], MARKERS[(i + i // n) % n], DASHES[(1 + i + 2 * (i // n)) % len(DASHES)])
        for i, arm in enumerate(others)
    }
    return {arm: styles.get(arm, ArmStyle(BASELINE, "o", "-")) for arm in arms}


def styled(make: Callable[P, R]) -> Callable[P, R]:
    """Draws a figure in the common style, whatever the caller's matplotlib settings are."""

    @functools.wraps(make)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            return make(*args, **kwargs)

    return inside


def canvas(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `columns` panels side by side, in inches, kept out of pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(w_pad=0.08, h_pad=0.08)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False, **options)
    return figure, list(axes[0])


def arm_legend(figure: Figure, styles: Mapping[str, ArmStyle], arms: Sequence[str]) -> None:
    """The arms' legend: in one row above the panels where their names fit, else at the right of them."""
    handles = [Line2D([], [], color=styles[a].colour, label=wrapped(a), linestyle=styles[a].dash) for a in arms]
    width, height = figure.get_size_inches()
    if sum(0.09 * len(a) + 0.75 for a in arms) < width and not any("\n" in wrapped(a) for a in arms):
        figure.legend(handles=handles, loc="outside upper left", ncols=len(arms), handlelength=2.2, columnspacing=1.4)
    else:
        longest = max(len(line) for a in arms for line in wrapped(a).split("\n"))
        figure.set_size_inches(width + 0.9 + 0.09 * longest, height)
        figure.legend(handles=handles, loc="outside right upper", handlelength=2.2)


def arm_rows(axes: Axes, arms: Sequence[str]) -> None:
    """A row for each arm, the first on top, named at the left."""
    axes.set_yticks(range(len(arms)), [wrapped(a) for a in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def wrapped(name: str, width: int = 24) -> str:
    """A long name on two or more lines."""
    return "\n".join(textwrap.wrap(name, width)) or name


def si_axis(axes: Axes, which: str, at: Sequence[float] | None = None) -> None:
    """Ticks as 1k, 2.5M; exactly at the values `at` where they are given."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda x, _: power_of_two(x) if at is not None else trim(si(x))))
    if at is not None:
        axis.set_ticks(list(at))
        axis.set_minor_locator(NullLocator())


def trim(text: str) -> str:
    """1.00k -> 1k."""
    number, suffix = (text[:-1], text[-1]) if text[-1:].isalpha() else (text, "")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + suffix


def power_of_two(x: float) -> str:
    """Context lengths and bytes as their makers say them: 8192 -> 8k, 1536 -> 1536."""
    return f"{x / 1024:.0f}k" if x >= 1024 and x % 1024 == 0 else f"{x:.0f}"


def log_if_wide(axes: Axes, which: str, values: Sequence[float] | np.ndarray, ratio: float = 20) -> None:
    """A logarithmic axis where positive values span more than `ratio`."""
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    if len(x) and x.min() > 0 and x.max() / x.min() > ratio:
        axes.set_xscale("log") if which == "x" else axes.set_yscale("log")


_REACHES = (11, 20, 32, 48, 70, 100)  # points
_ANGLES = np.deg2rad([0, 180, 30, -30, 150, -150, 90, -90, 60, -60, 120, -120])


def place_labels(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[float, float, str, str]],
    bars: Sequence[tuple[float, float, float]] = (),
) -> None:
    """Writes a label beside each point (x, y, text, colour) where it covers no point, no bar and no other label.

    Places round the point are tried from near to far; a label that had to go far is joined to its point by a
    thin line. `bars` are vertical, as (x, low, high). Call it last, when the axes have their limits.
    """
    figure.draw_without_rendering()
    axes.autoscale(False)
    renderer = cast(FigureCanvasAgg, figure.canvas).get_renderer()
    frame = axes.get_window_extent(renderer)
    unit = figure.dpi / 72
    spots = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    avoid = [Bbox(axes.transData.transform([(x, low), (x, high)])).padded(4 * unit) for x, low, high in bars]
    taken = [Bbox.from_bounds(px - 7 * unit, py - 7 * unit, 14 * unit, 14 * unit) for px, py in spots] + avoid
    for (x, y, text, colour), spot in zip(points, spots, strict=True):
        note = axes.annotate(
            text, (x, y), xytext=(0, 0), textcoords="offset points", color=BASELINE, fontsize=10.5, linespacing=1.15
        )
        size = note.get_window_extent(renderer)
        best, best_cost, best_box = (0.0, 0.0), float("inf"), size
        for reach, angle in itertools.product(_REACHES, _ANGLES):
            dx, dy = reach * unit * np.cos(angle), reach * unit * np.sin(angle)
            left = spot[0] + dx - size.width * (1 - np.cos(angle)) / 2
            low = spot[1] + dy - size.height * (1 - np.sin(angle)) / 2
            box = Bbox.from_bounds(left, low, size.width, size.height)
            outside = box.width * box.height - _overlap(box, frame)
            cost = reach + sum(_overlap(box.padded(2 * unit), b) for b in taken) + 10 * outside
            if cost < best_cost:
                best, best_cost, best_box = ((left - spot[0]) / unit, (low - spot[1]) / unit), cost, box
        note.xyann = best
        taken.append(best_box)
        nearest = (np.clip(spot[0], best_box.x0, best_box.x1), np.clip(spot[1], best_box.y0, best_box.y1))
        if np.hypot(nearest[0] - spot[0], nearest[1] - spot[1]) > 18 * unit:
            end = axes.transData.inverted().transform(nearest)
            axes.plot([x, end[0]], [y, end[1]], color=colour, linewidth=0.7, alpha=0.6, zorder=1)


def line_labels(figure: Figure, axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names lines at their ends (x, y, text, colour): those at the right edge in a column beside it, moved up and down
    until none covers another, and joined to their ends where they had to move; others above theirs. Call it last, when
    the axes have their limits.
    """
    figure.draw_without_rendering()
    axes.autoscale(False)
    edge = max(x for x, _, _, _ in ends)
    for x, y, text, colour in ends:
        if x < edge:
            axes.annotate(text, (x, y), xytext=(0, 9), textcoords="offset points", color=colour, fontsize=10.5)
    column = sorted((end for end in ends if end[0] == edge), key=lambda end: end[1])
    spots = [float(axes.transData.transform((x, y))[1]) for x, y, _, _ in column]
    heights = spread_apart(spots, 15 * figure.dpi / 72)
    for (x, y, text, colour), spot, height in zip(column, spots, heights, strict=True):
        moved = (height - spot) * 72 / figure.dpi
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(
            text, (x, y), xytext=(22, moved), textcoords="offset points", va="center", color=colour, fontsize=10.5,
            annotation_clip=False, arrowprops=line if abs(moved) > 3 else None,
        )  # fmt: skip


def spread_apart(spots: Sequence[float], gap: float) -> list[float]:
    """Rising numbers, moved as little as may be (in squares) until neighbours are `gap` apart."""
    from scipy.optimize import isotonic_regression

    steps = gap * np.arange(len(spots))
    return (isotonic_regression(np.array(spots) - steps).x + steps).tolist() if len(spots) else []


def _overlap(a: Bbox, b: Bbox) -> float:
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 0.0) * max(height, 0.0)
