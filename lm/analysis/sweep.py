"""The report of a plain sweep: which settings gave which loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from lm.analysis.ablation import Item, curve_items, provenance
from lm.analysis.figures import name_of
from lm.analysis.paired import mean_interval
from lm.analysis.report import Code, Plot, Report, Section, Table
from lm.analysis.style import SOFT, arm_styles, canvas, styled
from lm.analysis.tables import Row, TableError, arm_names, finished, has, need, number
from lm.analysis.text import Column, either, is_missing

MOST_CURVES = 8  # as many as can be told apart by colour


def sweep_report(
    *,
    title: str,
    question: str,
    axes: Sequence[str],
    runs: pd.DataFrame,
    curves: pd.DataFrame | None,
    notes: Sequence[str] = (),
    command: str = "",
    value: str = "heldout_loss",
) -> Report:
    """The report of a sweep over `axes`, the columns of `runs` that were varied.

    `runs` and `curves` are an ablation's tables; runs of one setting have one `arm`. Where one or two of the
    axes vary, all of them numbers, the loss is drawn over them.
    Raises TableError for an axis that `runs` doesn't have, or no runs.
    """
    if not len(runs):
        raise TableError("there are no runs to report")
    need(runs, axes, "run")
    good, dropped = finished(runs, value)
    settings = setting_table(good, axes, value)
    curve_notes: list[Item] = []
    if curves is not None and len(curves) and len(arm_names(curves)) > MOST_CURVES:
        best = list(settings["arm"])[:MOST_CURVES]
        curves = curves.loc[[str(a) in best for a in curves["arm"].tolist()]]
        curve_notes = [f"Curves of the {MOST_CURVES} best settings."]
    arms = list(settings["arm"]) + ([] if curves is None or not len(curves) else arm_names(curves))
    styles = arm_styles(list(dict.fromkeys(arms)), arms[0] if arms else None)
    asked: list[Item] = [question] if question else []
    asked += [Code(command)] if command else []
    sections = [
        Section(heading="Question", items=tuple(asked)),
        Section(heading="Answer", items=(_headline(settings, axes, value, len(good), len(runs)),)),
        Section(heading="Settings", items=(_table(settings, axes, value),)),
        Section(heading="Loss over the axes", items=tuple(_axis_items(good, axes, value)), terminal=False),
        Section(heading="Curves", items=tuple(curve_notes + curve_items(curves, styles)), terminal=False),
        Section(heading="Notes", items=tuple([*dropped, *notes])),
        Section(heading="Provenance", items=(provenance(runs, value, axes),), terminal=False),
    ]
    return Report(title=title, sections=tuple(s for s in sections if s.items))


def setting_table(good: Sequence[Row], axes: Sequence[str], value: str) -> pd.DataFrame:
    """A row for each arm that has a finished run, best first: its axes, runs n, mean, sd, and other numbers' means."""
    found: dict[str, list[Row]] = {}
    for run in good:
        found.setdefault(run["arm"], []).append(run)
    table = []
    for arm, mine in found.items():
        for axis in axes:
            if len({run[axis] for run in mine}) > 1:
                raise TableError(f"the runs of arm '{arm}' differ in {axis}; runs of one arm must share a setting")
        mean, sd, _, _ = mean_interval([run[value] for run in mine])
        others = {
            k: mean_interval([number(run.get(k)) for run in mine])[0]
            for k in ("params", "tokens", "heldout_bpb", "tokens_per_second")
            if k != value
        }
        row = {"arm": arm, **{a: mine[0][a] for a in axes}, "n": len(mine), value: mean, f"{value}_sd": sd, **others}
        table.append(row)
    columns = ["arm", *axes, "n", value, f"{value}_sd", "params", "tokens", "heldout_bpb", "tokens_per_second"]
    columns = list(dict.fromkeys(columns))
    table.sort(key=lambda row: row[value])
    return pd.DataFrame(table, columns=pd.Index(columns))


def _headline(settings: pd.DataFrame, axes: Sequence[str], value: str, good: int, all_runs: int) -> str:
    if not len(settings):
        return f"None of the {either(all_runs, 'run')} finished with a {value}."
    best = settings.to_dict("records")[0]
    where = ", ".join(f"{a} = {_show(best[a])}" for a in axes) or best["arm"]
    sd = "" if is_missing(best[f"{value}_sd"]) else f" ± {best[f'{value}_sd']:.4f}"
    return (
        f"Lowest {name_of(value)}: {best[value]:.4f}{sd} at {where}. {good} of {either(all_runs, 'run')} finished. "
        "The lowest of many is lower than it would be in new runs: repeat it with other seeds before relying on it."
    )


def _show(x: object) -> str:
    return f"{x:g}" if isinstance(x, float) else str(x)


def _table(settings: pd.DataFrame, axes: Sequence[str], value: str) -> Table:
    columns = [Column("arm", ("{arm}",))] if not axes else []
    columns += [Column(a, ("{" + a + (":g" if is_numeric(settings[a].tolist()) else "") + "}",)) for a in axes]
    loss = "held-out loss" if value == "heldout_loss" else value
    columns += [Column("n", ("{n:d}",)), Column(loss, (f"{{{value}:.4f}} ± {{{value}_sd:.4f}}", f"{{{value}:.4f}}"))]
    more = {
        "heldout_bpb": ("bits/byte", ".4f"),
        "params": ("parameters", "si"),
        "tokens": ("tokens", "si"),
        "tokens_per_second": ("training tokens/s", ",.0f"),
    }
    columns += [
        Column(words, (f"{{{k}:{spec}}}",)) for k, (words, spec) in more.items() if k != value and has(settings, k)
    ]
    caption = "Finished settings, best first; ± is the standard deviation over seeds."
    return Table(name="settings", frame=settings, columns=tuple(columns), caption=caption)


# ---- loss over an axis -----------------------------------------------------------------------------------------


def is_numeric(values: Sequence[Any]) -> bool:
    return all(math.isfinite(number(v)) and not isinstance(v, bool | str) for v in values)


def _axis_items(good: Sequence[Row], axes: Sequence[str], value: str) -> list[Item]:
    varied = [a for a in axes if len({run[a] for run in good}) > 1]
    if not 1 <= len(varied) <= 2:
        return ["No axis varies among the finished runs."] if not varied else []
    if not all(is_numeric([run[a] for run in good]) for a in varied):
        return []
    varied.sort(key=lambda a: -len({run[a] for run in good}))
    figure = loss_over_axis(good, varied[0], varied[1] if len(varied) == 2 else None, value)
    return [Plot(name="loss_over_axis", figure=figure, caption="Dots: runs. Lines: means over the runs of a setting.")]


@styled
def loss_over_axis(good: Sequence[Row], x: str, lines: str | None = None, value: str = "heldout_loss") -> Figure:
    """The runs' losses over the numeric axis `x`, with a line for each value of `lines`, from dark to light."""
    levels = sorted({number(run[lines]) for run in good}) if lines else [math.nan]
    figure, (axes,) = canvas(8.2, 4.8)
    shades = matplotlib.colormaps["viridis"]
    for i, level in enumerate(levels):
        mine = [run for run in good if lines is None or number(run[lines]) == level]
        colour = shades(0.85 * i / max(len(levels) - 1, 1))
        means = _means(mine, x, value)
        axes.plot(
            list(means), list(means.values()), color=colour, marker="os^Dv"[i % 5], label=f"{level:g}", markersize=6
        )
        axes.plot(
            [number(run[x]) for run in mine], [run[value] for run in mine], "o", color=colour, markersize=4, alpha=0.4
        )
    at = sorted({number(run[x]) for run in good})
    if at[0] > 0 and at[-1] / at[0] >= 8:
        axes.set_xscale("log")
    if len(at) <= 9:
        axes.set_xticks(at, [f"{v:g}" for v in at])
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.set_xlabel(x)
    axes.set_ylabel(name_of(value))
    if lines:
        axes.legend(title=lines, loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left")
    axes.set_title("dots: runs;  lines: means", color=SOFT)
    return figure


def _means(good: Sequence[Row], x: str, value: str) -> Mapping[float, float]:
    found: dict[float, list[float]] = {}
    for run in good:
        found.setdefault(number(run[x]), []).append(run[value])
    return {at: sum(found[at]) / len(found[at]) for at in sorted(found)}
