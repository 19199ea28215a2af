"""What models do at lengths that they weren't trained at: the same held-out text in longer and longer rows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lm.analysis.paired import mean_interval
from lm.analysis.report import Plot, Report, Section, Table
from lm.analysis.style import SOFT, ArmStyle, arm_styles, canvas, line_labels, styled
from lm.analysis.tables import number, rows
from lm.analysis.text import Column

BINS = 32  # of the positions, in the figure by position
Losses = dict[Hashable, dict[int, float]]  # of each seed, by the rows' length


@dataclass(frozen=True)
class Series:
    """An arm, or one of its RoPE scalings. loss: of the same text in rows of each length."""

    name: str
    loss: Losses

    def lengths(self) -> list[int]:
        """Those that every seed has."""
        return sorted(set.intersection(*(set(losses) for losses in self.loss.values())))

    def at(self, length: int) -> list[float]:
        return [losses[length] for losses in self.loss.values() if length in losses]

    def change(self, length: int, trained: int) -> list[float]:
        """How much more the text costs in such rows than in rows of the trained length, seed by seed."""
        return [x[length] - x[trained] for x in self.loss.values() if length in x and trained in x]


def with_lengths(
    report: Report, curves: pd.DataFrame, details: pd.DataFrame, named: Mapping[str, str], trained: int, baseline: str
) -> Report:
    """The report of an ablation with a section on lengths. named: each measure's split -> what it adds to an arm's
    name; trained: the length of the rows in training."""
    found = series_of(curves, named)
    if not found:
        return report
    styles = arm_styles([s.name for s in found], baseline)
    table = length_table(found, trained)
    sizes = sorted({length for s in found for length in s.lengths()})
    columns = [Column("positions", ("{series}",))]
    columns += [Column(f"loss at {n:,}", (f"{{loss_{n}:.4f}}", "no positions")) for n in sizes]
    changed = "{change:+.4f} [{low:+.4f}, {high:+.4f}]"
    columns += [Column(f"{sizes[-1]:,} minus {trained:,}", (changed, "{change:+.4f}", "no positions"))]
    caption = (
        f"The same held-out text in rows of so many tokens, trained at {trained:,}: nats a token, means over seeds. "
        "The interval of the change is Student's t at 95%, over seeds."
    )
    items = [
        *[said(s, table.loc[table["series"] == s.name].to_dict("records")[0], trained, sizes[-1]) for s in found],
        Table(name="lengths", frame=table, columns=tuple(columns), caption=caption),
        Plot(name="loss_over_length", figure=loss_over_length(found, styles, trained), caption=caption),
    ]
    if figure := loss_by_position(details, named, styles, trained, sizes[-1]):
        by_place = f"Loss at each position of rows of {sizes[-1]:,} tokens, {BINS} bins, means over seeds."
        items.append(Plot(name="loss_by_position", figure=figure, caption=by_place))
    section = Section(heading="Beyond the trained length", items=tuple(items))
    return dataclasses.replace(report, sections=(*report.sections[:2], section, *report.sections[2:]))


def series_of(curves: pd.DataFrame, named: Mapping[str, str]) -> list[Series]:
    """What the last look of each run found, arm by arm."""
    found: dict[str, Series] = {}
    for row in rows(curves):
        if row["split"] not in named:
            continue
        name = _name(row["arm"], named[row["split"]])
        values = {int(m[1]): number(x) for key, x in row.items() if (m := re.fullmatch(r"loss_(\d+)", key))}
        losses = {n: x for n, x in values.items() if not np.isnan(x)}
        found.setdefault(name, Series(name, {})).loss[row["seed"]] = losses
    return [s for s in found.values() if s.lengths()]


def _name(arm: str, added: str) -> str:
    return f"{arm}, {added}" if added else arm


def length_table(found: Sequence[Series], trained: int) -> pd.DataFrame:
    """A row a series: loss_N with its spread over seeds, and its change from the trained to the longest length."""
    longest = max(max(s.lengths()) for s in found)
    table = []
    for s in found:
        row: dict[str, object] = {"series": s.name, "seeds": len(s.loss)}
        for n in s.lengths():
            row[f"loss_{n}"], row[f"loss_{n}_sd"], _, _ = mean_interval(s.at(n))
        row["change"], _, row["low"], row["high"] = mean_interval(s.change(longest, trained))
        table.append(row)
    return pd.DataFrame(table)


def said(series: Series, row: Mapping[str, float], trained: int, longest: int) -> str:
    """A sentence on one series."""
    if longest not in series.lengths():
        return f"{series.name}: no positions beyond {max(series.lengths()):,}."
    change, low, high = (row[name] for name in ("change", "low", "high"))
    verdict = "gets better" if high < 0 else "gets worse" if low > 0 else "no change that the seeds resolve"
    return f"{series.name}: {verdict}, {change:+.4f} nats [{low:+.4f}, {high:+.4f}] from {trained:,} to {longest:,}."


@styled
def loss_over_length(found: Sequence[Series], styles: Mapping[str, ArmStyle], trained: int) -> Figure:
    """The loss of the same text over the length of the rows it is read in; a line a series, dots for its seeds."""
    figure, (axes,) = canvas(9.2, 5.2)
    ends = []
    for s in found:
        style, at = styles[s.name], s.lengths()
        means = [float(np.mean(s.at(n))) for n in at]
        axes.plot(at, means, color=style.colour, linestyle=style.dash, marker=style.marker, markersize=5.5)
        for n in at:
            y = s.at(n)
            axes.plot([n] * len(y), y, "o", color=style.colour, markersize=3.5, alpha=0.4, markeredgewidth=0)
        alone = f": ends at {at[-1]:,}" if len(at) == 1 else ""
        ends.append((float(at[-1]), means[-1], s.name + alone, style.colour))
    sizes = sorted({n for s in found for n in s.lengths()})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{n:,}\n{_times(n, trained)}" for n in sizes])
    axes.minorticks_off()
    axes.set_xlabel("tokens a row is read in")
    axes.set_ylabel("held-out loss (nats/token)")
    axes.set_title("the same text in longer rows;  dots: seeds, lines: means", color=SOFT)
    line_labels(figure, axes, ends)
    return figure


def _times(n: int, trained: int) -> str:
    return "as trained" if n == trained else f"{n / trained:g} x"


@styled
def loss_by_position(
    details: pd.DataFrame, named: Mapping[str, str], styles: Mapping[str, ArmStyle], trained: int, longest: int
) -> Figure | None:
    """The loss over the position in the longest rows. None where no series has positions for them."""
    found: dict[str, dict[Hashable, list[float]]] = {}
    for row in rows(details):
        if row["split"] in named and row["name"] == f"loss_{longest}":
            seeds = found.setdefault(_name(row["arm"], named[row["split"]]), {})
            seeds.setdefault(row["seed"], []).append(row["value"])
    if not found:
        return None
    figure, (axes,) = canvas(9.2, 5.2)
    ends = []
    for name, seeds in found.items():
        mean = np.mean(list(seeds.values()), axis=0)
        each = max(1, longest // BINS)
        bins = mean[: each * (longest // each)].reshape(-1, each).mean(axis=1)
        x = (np.arange(len(bins)) + 0.5) * each
        axes.plot(x, bins, color=styles[name].colour, linestyle=styles[name].dash)
        ends.append((float(x[-1]), float(bins[-1]), name, styles[name].colour))
    _trained_until(axes, trained, longest)
    axes.set_xlabel("position in the row")
    axes.set_ylabel("held-out loss (nats/token)")
    line_labels(figure, axes, ends)
    return figure


def _trained_until(axes: Axes, trained: int, longest: int) -> None:
    axes.set_xlim(0, longest)
    axes.axvspan(0, trained, color=SOFT, alpha=0.1, linewidth=0)
    axes.set_xticks([n for n in (trained << i for i in range(20)) if n <= longest])
    axes.annotate("trained", (trained / 2, 1.0), xycoords=axes.get_xaxis_transform(), ha="center", va="bottom",
                  color=SOFT, fontsize=10.5)  # fmt: skip
