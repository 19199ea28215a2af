"""Does the best learning rate stay where it is as a model gets wider? Optima by parametrisation and width.

The plot of Yang et al. 2022 ("Tensor Programs V", figure 1): loss over the learning rate, one line a width.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lm.analysis.ablation import Item, provenance
from lm.analysis.figures import name_of
from lm.analysis.paired import mean_interval
from lm.analysis.report import Code, Plot, Report, Section, Table
from lm.analysis.style import BASELINE, canvas, styled
from lm.analysis.tables import Row, TableError, finished, need, number
from lm.analysis.text import Column, either

Losses = Mapping[float, float]  # rate -> loss


@dataclass(frozen=True)
class Optimum:
    """The rate of lowest loss, and that loss. `bound` is "<=" or ">=" where it is the last of the rates tried."""

    rate: float
    loss: float
    bound: str = ""


def optimum(losses: Losses) -> Optimum:
    """The lowest point of a parabola over the logarithm of the rate, through the lowest loss and its two neighbours.

    More points would let the steep side pull it, where training nearly diverges. A lowest loss without a finite
    neighbour on both sides is taken as it is, as a bound. Raises TableError if no loss is finite.
    """
    rates = sorted(losses)
    values = [losses[rate] for rate in rates]
    if not np.isfinite(values).any():
        raise TableError("no loss is finite, so none is lowest")
    i = int(np.nanargmin([v if math.isfinite(v) else math.nan for v in values]))
    left, right = i > 0 and math.isfinite(values[i - 1]), i + 1 < len(rates) and math.isfinite(values[i + 1])
    if not (left and right):
        return Optimum(rates[i], values[i], "" if len(rates) == 1 else ">=" if left else "<=")
    x, y = np.log(rates[i - 1 : i + 2]) - math.log(rates[i]), np.array(values[i - 1 : i + 2]) - values[i]
    a, b, _ = np.polyfit(x, y, 2)
    if a <= 0:  # all three are equal
        return Optimum(rates[i], values[i])
    return Optimum(float(rates[i] * math.exp(-b / (2 * a))), float(values[i] - b * b / (4 * a)))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One parametrisation at one width: every seed's losses by rate, and its optimum."""

    rule: str
    width: float
    losses: Mapping[Hashable, Losses]
    optima: Mapping[Hashable, Optimum]

    @property
    def means(self) -> dict[float, float]:
        """Loss by rate, over the seeds that have it."""
        rates = sorted({rate for one in self.losses.values() for rate in one})
        return {rate: float(np.mean([one[rate] for one in self.losses.values() if rate in one])) for rate in rates}

    @property
    def best(self) -> float:
        """The rate of the grid with the lowest mean loss."""
        means = self.means
        return min(means, key=means.__getitem__)

    def rate(self) -> tuple[float, float, float]:
        """The seeds' optimal rate, their geometric mean, with a 95% interval."""
        mean, _, low, high = mean_interval([math.log(o.rate) for o in self.optima.values()])
        return math.exp(mean), math.exp(low), math.exp(high)

    @property
    def bound(self) -> str:
        return next((o.bound for o in self.optima.values() if o.bound), "")


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How many steps of the grid the optimum moves from the narrowest to the widest, with a 95% interval over seeds.

    bound: "<=" or ">=" where one of the two optima is no more than a bound itself.
    """

    rule: str
    steps: float
    low: float
    high: float
    bound: str


def settings(good: Sequence[Row], rule: str, width: str, rate: str, value: str) -> list[Setting]:
    """The runs by their columns `rule` and `width`, narrow to wide; a seed counts from 3 rates on."""
    found: dict[tuple[str, float], dict[Hashable, dict[float, float]]] = {}
    for run in good:
        key = str(run[rule]), number(run[width])
        found.setdefault(key, {}).setdefault(run["seed"], {})[number(run[rate])] = run[value]
    order = list(dict.fromkeys(name for name, _ in found))
    enough = {key: {seed: one for seed, one in seeds.items() if len(one) >= 3} for key, seeds in found.items()}
    return [
        Setting(rule=name, width=w, losses=losses, optima={seed: optimum(one) for seed, one in losses.items()})
        for (name, w), losses in sorted(enough.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
        if losses
    ]


def shift(of: Sequence[Setting], step: float) -> Shift:
    """The shift between the first and the last setting of one parametrisation, in steps of the factor `step`.

    It is taken inside each seed that both have; NaN where there is none.
    """
    first, last = of[0], of[-1]
    seeds = [seed for seed in first.optima if seed in last.optima]
    moved = [math.log(last.optima[s].rate / first.optima[s].rate) / math.log(step) for s in seeds]
    mean, _, low, high = mean_interval(moved)
    below = {"<=": ">=", ">=": "<=", "": ""}[first.bound]  # an optimum below the grid makes the shift larger
    bounds = {below, last.bound} - {""}
    return Shift(rule=first.rule, steps=mean, low=low, high=high, bound="?" if len(bounds) == 2 else "".join(bounds))


def step_of(rates: Sequence[float]) -> float:
    """The factor between neighbouring rates of a grid. Raises TableError for a grid that has no such factor."""
    ratios = np.exp(np.diff(np.log(sorted(set(rates)))))
    if not len(ratios) or np.ptp(ratios) > 0.02 * ratios.mean():
        raise TableError(f"the rates {sorted(set(rates))} are no grid with one factor; shifts have no unit")
    return float(ratios.mean())


def transfer_report(
    *,
    title: str,
    question: str,
    runs: pd.DataFrame,
    rule: str,
    width: str,
    rate: str,
    command: str = "",
    value: str = "heldout_loss",
    notes: Sequence[str] = (),
) -> Report:
    """The report of runs over the learning rate (column `rate`) and the width under several parametrisations (`rule`).

    Raises TableError for a column that `runs` lacks.
    """
    need(runs, [rule, width, rate], "run")
    good, dropped = finished(runs, value)
    found = settings(good, rule, width, rate, value)
    by_rule = {name: [s for s in found if s.rule == name] for name in dict.fromkeys(s.rule for s in found)}
    step = step_of([number(x) for x in runs[rate].tolist()])
    shifts = [s for of in by_rule.values() if len(of) > 1 and not math.isnan((s := shift(of, step)).steps)]
    said = [sentence(s, by_rule[s.rule], step) for s in shifts] or ["No seed has 3 rates at two widths yet."]
    asked: list[Item] = [question] if question else []
    asked += [Code(command)] if command else []
    figure: list[Item] = []
    if found:
        caption = (
            "Lines: means over seeds; small dots: runs. Stars: lowest points of parabolas; their bars: 95% over seeds; "
            "hollow ones are bounds. The frame leaves out what is far above."
        )
        figure = [Plot(name="transfer", figure=transfer_figure(by_rule, value), caption=caption)]
    sections = [
        Section(heading="Question", items=tuple(asked)),
        Section(heading="Answer", items=(*said, f"{len(good)} of {either(len(runs), 'run')} finished.")),
        Section(heading="Optima", items=(_table(by_rule, value),) if found else ()),
        Section(heading="Loss over the learning rate", items=tuple(figure), terminal=False),
        Section(heading="Notes", items=tuple([*dropped, *notes])),
        Section(heading="Provenance", items=(provenance(runs, value, (rule, width, rate)),), terminal=False),
    ]
    return Report(title=title, sections=tuple(s for s in sections if s.items))


def sentence(found: Shift, of: Sequence[Setting], step: float) -> str:
    """The shift in words, and what it costs to keep the narrowest model's rate."""
    first, last = of[0], of[-1]
    bound = {"": "", ">=": "at least ", "<=": "at most ", "?": "an unknown number, here "}[found.bound]
    interval = "" if math.isnan(found.low) else f" [{found.low:+.2f}, {found.high:+.2f}]"
    text = (
        f"{found.rule}: from width {first.width:g} to {last.width:g} the best rate moves by {bound}{found.steps:+.2f} "
        f"steps of a factor {step:g}{interval}, from {first.rate()[0]:.3g} to {last.rate()[0]:.3g}."
    )
    carried = last.means.get(first.best, math.nan)
    if math.isfinite(carried):
        text += f" The narrowest model's best rate costs the widest {carried - last.means[last.best]:.4f} nats."
    return text


def _table(by_rule: Mapping[str, Sequence[Setting]], value: str) -> Table:
    rows = []
    for rule, of in by_rule.items():
        for one in of:
            rate, low, high = one.rate()
            best, carried = one.means[one.best], one.means.get(of[0].best, math.nan)
            row = {"parametrisation": rule, "width": one.width, "n": len(one.losses), "best": one.best}
            row |= {"optimum": rate, "low": low, "high": high, "bound": one.bound}
            rows.append(row | {value: best, "carried": carried, "cost": carried - best})
    columns = (
        Column("parametrisation", ("{parametrisation}",)),
        Column("width", ("{width:.0f}",)),
        Column("n", ("{n:d}",)),
        Column("best of the grid", ("{best:.3g}",)),
        Column("best rate", ("{optimum:.3g} [{low:.3g}, {high:.3g}]", "{bound} {optimum:.3g}", "{optimum:.3g}")),
        Column(name_of(value), (f"{{{value}:.4f}}",)),
        Column("at the narrowest's rate", ("{carried:.4f}",)),
        Column("its cost", ("{cost:.4f}",)),
    )
    caption = (
        "Best rate: the lowest point of a parabola through the lowest loss and its neighbours, with a 95% interval "
        "over seeds. The narrowest's rate is the best of the grid at the smallest width."
    )
    return Table(name="optima", frame=pd.DataFrame(rows), columns=columns, caption=caption)


# ---- the figure ----------------------------------------------------------------------------------------------


@styled
def transfer_figure(by_rule: Mapping[str, Sequence[Setting]], value: str = "heldout_loss") -> Figure:
    """Loss over the rate, a panel for each parametrisation, a line for each width from dark (narrow) to light."""
    figure, panels = canvas(5.4 * len(by_rule) + 0.9, 4.8, len(by_rule), sharey=True)
    widths = sorted({one.width for of in by_rule.values() for one in of})
    for axes, (rule, of) in zip(panels, by_rule.items(), strict=True):
        for one in of:
            shade = 0.85 * widths.index(one.width) / max(len(widths) - 1, 1)
            _line(axes, one, matplotlib.colormaps["viridis"](shade))
        axes.set_xscale("log", base=2)
        rates = sorted({rate for one in of for rate in one.means})
        axes.set_xticks(rates, [f"{rate:.2g}" for rate in rates], rotation=35)
        axes.tick_params(axis="x", which="minor", bottom=False)
        axes.set_xlabel("learning rate")
        axes.set_title(rule)
    lowest = [one.means[one.best] for of in by_rule.values() for one in of]
    edges = [loss for of in by_rule.values() for one in of for loss in one.means.values()]
    span = max(max(lowest) - min(lowest), 0.02)
    panels[0].set_ylim(min(lowest) - 0.15 * span, min(max(edges) + 0.1 * span, max(lowest) + 2.5 * span))
    panels[0].set_ylabel(name_of(value))
    panels[-1].legend(title="width", loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left")
    return figure


def _line(axes: Axes, one: Setting, colour: tuple[float, float, float, float]) -> None:
    means = one.means
    axes.plot(list(means), list(means.values()), color=colour, marker="o", markersize=5, label=f"{one.width:g}")
    if len(one.losses) > 1:
        for losses in one.losses.values():
            axes.plot(list(losses), list(losses.values()), "o", color=colour, markersize=3, alpha=0.4)
    rate, low, high = one.rate()
    loss = float(np.mean([o.loss for o in one.optima.values()]))
    if math.isfinite(low):
        axes.plot([low, high], [loss, loss], color=colour, linewidth=1.2)
    face = "white" if one.bound else colour
    axes.plot([rate], [loss], "*", color=face, markeredgecolor=BASELINE, markersize=14, markeredgewidth=0.8, zorder=5)
