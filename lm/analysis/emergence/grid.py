"""Small multiples of published scores: a panel a task, a dot a model, the rise and where its middle is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from lm.analysis.emergence.midpoints import Midpoint, midpoint
from lm.analysis.emergence.published import GRADED, WORDS, Curve, Scores, X
from lm.analysis.emergence.scores import detectable
from lm.analysis.style import BASELINE, COLOURS, MARKERS, SOFT, arm_styles, si_axis, styled, wrapped
from lm.analysis.tables import TableError

COLUMNS = 4
PANEL = (3.5, 2.75)  # inches
LINE = 0.235  # inches of a line of the legend
BAND = "#d9e4ee"
LEGEND: dict[str, Any] = {"handlelength": 1.6, "columnspacing": 1.2, "alignment": "left"}


@styled
def score_grid(
    scores: Scores,
    tasks: Sequence[str] | None = None,
    x: X = "flops",
    examples: Mapping[str, int] | None = None,
    found: Mapping[str, Midpoint] | None = None,
) -> Figure:
    """A panel for each curve of the tasks (see `Scores.curves`), over a logarithmic x.

    Dots are models, in their family's colour and marker.
    Lines: chance (dotted), the fitted logistic with a star half-way up and its interval as a band, and the least
    score that can be told from chance (dashed) where `examples` says how many questions a task has.
    found: midpoints by curve; fitted here where none are given. A curve of too few models has no line.
    """
    curves = scores.curves(x, tasks)
    found = midpoints(curves)[0] if found is None else found
    marks = family_marks(scores)
    rows, columns = -(-len(curves) // COLUMNS), min(len(curves), COLUMNS)
    figure = Figure(figsize=(PANEL[0] * columns + 0.4, PANEL[1] * rows + 0.5), layout="constrained")
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(w_pad=0.06, h_pad=0.08)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel().tolist()
    lines: dict[str, Any] = {}
    for axes, curve in zip(panels, curves, strict=False):
        lines |= _panel(axes, curve, marks, found.get(curve.name), (examples or {}).get(curve.task))
    _frame(panels, len(curves), columns, WORDS[x], x)
    drawn = {str(name) for curve in curves for name in curve.family}
    handles = [Line2D([], [], linestyle="", label=name, **mark) for name, mark in marks.items() if name in drawn]
    _legends(figure, handles, list(lines.values()))
    return figure


def midpoints(curves: Sequence[Curve], n: int = 1000, seed: int = 0) -> tuple[dict[str, Midpoint], list[str]]:
    """The midpoint of each curve, by its name, and a sentence about each that has too few models for one."""
    found, notes = {}, []
    for curve in curves:
        try:
            found[curve.name] = midpoint(curve, n, seed)
        except TableError as error:
            notes.append(f"No midpoint: {error}.")
    return found, notes


def family_marks(scores: Scores) -> dict[str, dict[str, Any]]:
    """How each family's dots look, in every figure of these scores: no two alike up to twice 49 of them."""
    families = sorted(set(scores.frame["family"].astype(str)), key=str.casefold)
    marks = {}
    for i, (name, style) in enumerate(arm_styles(families).items()):
        face = style.colour if i < len(COLOURS) * len(MARKERS) else "none"
        edge = {"markerfacecolor": face, "markeredgecolor": style.colour, "markeredgewidth": 0.9}
        marks[name] = {"color": style.colour, "marker": style.marker, "markersize": 6, "alpha": 0.85, **edge}
    return marks


def _panel(
    axes: Axes, curve: Curve, marks: Mapping[str, dict[str, Any]], found: Midpoint | None, examples: int | None
) -> dict[str, Any]:
    """Draws a curve; the handles of its lines by what they are."""
    lines: dict[str, Any] = {"chance": axes.axhline(curve.chance, color=SOFT, linestyle=":", linewidth=1.4, zorder=1)}
    said = ""
    if examples is not None and curve.metric not in GRADED:
        least = detectable(examples, curve.chance)
        lines["least"] = axes.axhline(least, color=SOFT, linestyle=(0, (5, 2)), linewidth=1.0, zorder=1)
        lines["least"].set_label("least that can be\ntold from chance")
    for name in dict.fromkeys(curve.family.tolist()):
        mine = curve.family == name
        axes.plot(10 ** curve.x[mine], curve.value[mine], linestyle="", zorder=3, **marks[name])
    if found is not None:
        lines |= _rise(axes, found)
        said = _words(found)
    lines["chance"].set_label("chance")
    axes.set_title(f"{wrapped(curve.name, 34)}\n", fontsize=12.5, color=BASELINE)
    axes.text(0, 1.03, said, transform=axes.transAxes, fontsize=10.5, color=SOFT)
    return lines


def _rise(axes: Axes, found: Midpoint) -> dict[str, Any]:
    """The fitted logistic and its midpoint. Where that isn't known, neither star nor band."""
    low, high = found.curve.x.min(), found.curve.x.max()
    at = np.linspace(low, high, 200)
    (line,) = axes.plot(10**at, found.fit.predict(x=at), color=BASELINE, linewidth=1.8, zorder=4, label="logistic fit")
    if not found.known:
        return {"fit": line}
    axes.axvspan(*(10 ** np.array(found.interval)), color=BAND, linewidth=0, zorder=0)
    axes.plot(
        10**found.at, found.fit.predict(x=found.at), "*",
        color="white", markeredgecolor=BASELINE, markersize=14, markeredgewidth=1.2, zorder=5,
    )  # fmt: skip
    star = Line2D([], [], linestyle="", marker="*", color="white", markeredgecolor=BASELINE, markersize=12)
    star.set_label("its midpoint")
    return {"fit": line, "star": star, "band": Patch(color=BAND, label="95% interval of\nthe midpoint")}


def _words(found: Midpoint) -> str:
    if not found.known:
        return "midpoint not known"
    low, high = found.interval
    return f"midpoint $10^{{{found.at:.2f}}}$  [{low:.2f}, {high:.2f}]"


def _frame(panels: Sequence[Axes], count: int, columns: int, words: str, x: X) -> None:
    """Axes in common: labels at the left and under the last panel of each column, nothing where no panel is."""
    for axes in panels[count:]:
        axes.set_visible(False)
    for i, axes in enumerate(panels[:count]):
        axes.set_xscale("log")
        axes.set_ylim(-0.04, 1.04)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if x == "flops":
            axes.xaxis.set_major_locator(LogLocator(numticks=6))
        else:
            si_axis(axes, "x")
        if i % columns == 0:
            axes.set_ylabel("score")
        if i + columns >= count:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(words)


def _legends(figure: Figure, families: Sequence[Any], lines: Sequence[Any]) -> None:
    """Families, and what the lines are: at the right of the panels, or below them where those are wide and low."""
    width, height = figure.get_size_inches()
    column = 0.6 + 0.095 * max(len(line) for handle in (*families, *lines) for line in _lines(handle))
    below = LINE * (sum(len(_lines(handle)) for handle in lines) + 1)
    beside = LINE * (len(families) + 1) + below
    across = int((width - column) / column)
    if beside <= height:
        figure.set_size_inches(width + column, height)
        figure.legend(handles=families, loc="outside right upper", **LEGEND)
        figure.legend(handles=lines, loc="outside right lower", **LEGEND)
    elif across >= 3:
        figure.set_size_inches(width, height + max(LINE * (-(-len(families) // across) + 1), below))
        figure.legend(handles=families, loc="outside lower left", ncols=across, **LEGEND)
        figure.legend(handles=lines, loc="outside lower right", **LEGEND)
    else:
        columns = math.ceil(beside / height)
        figure.set_size_inches(width + columns * column, height)
        figure.legend(handles=[*families, *lines], loc="outside right upper", ncols=columns, **LEGEND)


def _lines(handle: Any) -> list[str]:
    return str(handle.get_label()).split("\n")
