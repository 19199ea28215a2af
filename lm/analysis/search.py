"""The report of a search: the best trial, how it was come by, and which parameters mattered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lm.analysis.ablation import Item, provenance
from lm.analysis.figures import name_of
from lm.analysis.report import Code, Plot, Report, Section, Table
from lm.analysis.style import BASELINE, COLOURS, SOFT, canvas, log_if_wide, styled, wrapped
from lm.analysis.sweep import is_numeric
from lm.analysis.tables import Row, TableError, need, number, rows
from lm.analysis.text import Column, either, is_missing

MOST_PANELS = 6  # parameters whose losses are drawn, the most important ones
BEST = 10  # trials that the terminal shows
STATES = {"complete": "finished", "pruned": "stopped early", "failed": "failed", "open": "not done yet"}


def search_report(
    *,
    title: str,
    question: str,
    axes: Sequence[str],
    runs: pd.DataFrame,
    trials: pd.DataFrame,
    importances: pd.DataFrame,
    notes: Sequence[str] = (),
    command: str = "",
    value: str = "heldout_loss",
) -> Report:
    """The report of a search over `axes`, columns of `trials`, which has a row for each trial: trial (its number),
    state, the value (of a trial that was stopped the last one seen), the step where it was stopped, and why it failed.

    importances: path and importance, shares of 1; empty where they aren't known.
    Raises TableError for a column that `trials` lacks, or no trials.
    """
    need(trials, ["trial", "state", value, *axes], "trial")
    every = rows(trials)
    if not every:
        raise TableError("there are no trials to report")
    good = [row for row in every if row["state"] == "complete" and math.isfinite(number(row[value]))]
    shares = {str(row["path"]): number(row["importance"]) for row in rows(importances)}
    shown = sorted(axes, key=lambda axis: -shares.get(axis, 0.0))[:MOST_PANELS]
    figures: list[Item] = []
    if good:
        caption = "Dots: finished trials. Line: the lowest so far. Ticks on top: trials without a final loss."
        figures.append(Plot(name="progress", figure=progress(every, value), caption=caption))
        caption = "Dark to light: first to last trial. Ticks on top: where trials were stopped early (grey) or failed."
        figures.append(Plot(name="slices", figure=slices(every, shown, value), caption=caption))
    asked: list[Item] = [question] if question else []
    asked += [Code(command)] if command else []
    sections = [
        Section(heading="Question", items=tuple(asked)),
        Section(heading="Answer", items=(headline(every, good, axes, value),)),
        Section(heading="Loss over trials and parameters", items=tuple(figures), terminal=False),
        Section(heading="Importance", items=tuple(_importance(importances, len(good)))),
        Section(heading="Best trials", items=(_table("best", trials, axes, value, most=BEST),) if good else ()),
        Section(heading="All trials", items=(_table("trials", trials, axes, value),), terminal=False),
        Section(heading="Notes", items=tuple([*_failures(every), *notes])),
        Section(heading="Provenance", items=(provenance(runs, value, axes),), terminal=False),
    ]
    return Report(title=title, sections=tuple(s for s in sections if s.items))


def headline(every: Sequence[Row], good: Sequence[Row], axes: Sequence[str], value: str) -> str:
    counts = {words: sum(row["state"] == state for row in every) for state, words in STATES.items()}
    said = f"Of {either(len(every), 'trial')}, " + ", ".join(f"{n} {words}" for words, n in counts.items() if n) + "."
    if not good:
        return f"No trial has come to its end. {said}"
    best = min(good, key=lambda row: number(row[value]))
    where = ", ".join(f"{axis} = {_show(best[axis])}" for axis in axes)
    return (
        f"Lowest {name_of(value)}: {number(best[value]):.4f} in trial {best['trial']}, at {where}. {said} "
        "The lowest of many is lower than it would be in new runs: repeat it with other seeds before relying on it."
    )


def _importance(importances: pd.DataFrame, finished: int) -> list[Item]:
    if not len(importances):
        return [f"The {either(finished, 'finished trial')} are too few, or the parameters, to tell which ones matter."]
    caption = (
        "How unlike the best trials' values of a parameter are to those of all finished trials, as shares of 1 "
        "(PED-ANOVA). It is of this space and of these trials: a wider range makes its parameter more important, a "
        "parameter that matters only together with another looks unimportant, and stopped trials aren't in it."
    )
    columns = (Column("parameter", ("{path}",)), Column("importance", ("{importance:.2f}",)))
    return [Table(name="importances", frame=importances, columns=columns, caption=caption)]


def _failures(every: Sequence[Row]) -> list[str]:
    """A line for each reason why trials have no loss."""
    found: dict[str, list[str]] = {}
    for row in every:
        if row["state"] == "failed":
            found.setdefault(str(row.get("why", "")), []).append(str(row["trial"]))
    return [f"Failed: trial{'s' * (len(names) > 1)} {', '.join(names)}: {why}." for why, names in found.items()]


def _table(name: str, trials: pd.DataFrame, axes: Sequence[str], value: str, most: int | None = None) -> Table:
    """The trials, finished ones first; or the finished ones that are best."""
    order = list(STATES)
    found = sorted(rows(trials), key=lambda row: (order.index(row["state"]), _last(row[value]), row["trial"]))
    caption = "Finished trials, best first, then the others. The loss of one that was stopped is the last one seen."
    if most is not None:
        good = [row for row in found if row["state"] == "complete"]
        found, caption = good[:most], f"The best of {either(len(good), 'finished trial')}."
    specs = {axis: _spec([row[axis] for row in found if not is_missing(row[axis])]) for axis in axes}
    columns = (
        Column("trial", ("{trial:d}",)),
        *([Column("state", ("{state}",)), Column("stopped at step", ("{step:.0f}",))] if most is None else []),
        Column("held-out loss" if value == "heldout_loss" else value, (f"{{{value}:.4f}}",)),
        *(Column(axis, ("{" + axis + specs[axis] + "}",)) for axis in axes),
    )
    return Table(name=name, frame=pd.DataFrame(found, columns=trials.columns), columns=columns, caption=caption)


def _last(value: Any) -> float:
    """A number to sort by, of which none comes after all others."""
    return math.inf if math.isnan(number(value)) else number(value)


def _spec(values: Sequence[Any]) -> str:
    if not is_numeric(values):
        return ""
    return ":.0f" if all(float(v).is_integer() for v in values) else ":.4g"


def _show(x: object) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)


# ---- figures ----------------------------------------------------------------------------------------------------


@styled
def progress(every: Sequence[Row], value: str = "heldout_loss") -> Figure:
    """The losses of trials in the order they were asked for, and the lowest so far."""
    good = [row for row in every if row["state"] == "complete"]
    figure, (axes,) = canvas(8.2, 4.4)
    at, losses = [number(row["trial"]) for row in good], [number(row[value]) for row in good]
    lowest = np.minimum.accumulate(losses)
    axes.plot(at, losses, "o", color=COLOURS[0], markersize=5, alpha=0.6, markeredgewidth=0)
    axes.step([*at, number(every[-1]["trial"])], [*lowest, lowest[-1]], color=BASELINE, where="post", linewidth=1.6)
    _limits(axes, losses)
    _ticks(axes, every, "trial")
    axes.set_xlabel("trial")
    axes.set_ylabel(name_of(value))
    return figure


@styled
def slices(every: Sequence[Row], shown: Sequence[str], value: str = "heldout_loss") -> Figure:
    """The losses over each parameter by itself, from the first trials (dark) to the last ones (light)."""
    good = [row for row in every if row["state"] == "complete"]
    losses = [number(row[value]) for row in good]
    figure, panels = canvas(3.4 * len(shown) + 1.2, 4.2, len(shown), sharey=True)
    colours = matplotlib.colormaps["viridis"](0.9 * np.linspace(0, 1, max(len(every), 2)))
    shades = [colours[int(number(row["trial"]))] for row in good]
    for axes, path in zip(panels, shown, strict=True):
        known = [row[path] for row in every if not is_missing(row[path])]
        levels = None if is_numeric(known) else {str(v): i for i, v in enumerate(dict.fromkeys(map(str, known)))}
        x = [_place(row[path], levels) + (_aside(row["trial"]) if levels else 0.0) for row in good]
        axes.scatter(x, losses, c=shades, s=26, linewidths=0)
        if levels is None:
            log_if_wide(axes, "x", [number(v) for v in known])
        else:
            axes.set_xticks(range(len(levels)), [wrapped(name.replace("(", " ("), 16) for name in levels])
            axes.set_xlim(-0.6, len(levels) - 0.4)
        _ticks(axes, every, path, levels)
        axes.set_xlabel(path.rsplit(".", 1)[-1])
    _limits(panels[0], losses)
    panels[0].set_ylabel(name_of(value))
    return figure


def _place(value: Any, levels: dict[str, int] | None) -> float:
    return number(value) if levels is None else levels[str(value)]


def _aside(trial: int) -> float:
    """How far a dot stands beside its option, so that dots don't hide each other."""
    return 0.4 * (trial * 0.618 % 1 - 0.5)


def _limits(axes: Axes, losses: Sequence[float]) -> None:
    """Losses far above the others would make the rest a line; they are on the upper edge instead."""
    low, middle, high = min(losses), float(np.median(losses)), max(losses)
    top = min(high, low + 6 * max(middle - low, 1e-6))
    room = 0.06 * max(top - low, 1e-6)
    axes.set_ylim(low - room, top + 2 * room)
    outside = sum(loss > top for loss in losses)
    if outside:
        axes.set_title(f"{either(outside, 'loss', 'losses')} above the frame", color=SOFT)


def _ticks(axes: Axes, every: Sequence[Row], path: str, levels: dict[str, int] | None = None) -> None:
    """Trials without a final loss, by where they were."""
    for state, colour in (("pruned", SOFT), ("failed", COLOURS[1])):
        at = [row[path] for row in every if row["state"] == state and not is_missing(row[path])]
        x = [_place(value, levels) for value in at]
        axes.plot(x, [0.985] * len(x), "|", color=colour, markersize=9, transform=axes.get_xaxis_transform())
