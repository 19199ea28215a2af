"""The report of a ladder: its law, and whether that foretold the largest runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from lm.analysis.report import Plot, Report, Section, Table
from lm.analysis.scaling.bootstrap import Bootstrap
from lm.analysis.scaling.fitting import fit
from lm.analysis.scaling.frontier import bands
from lm.analysis.scaling.holdout import Holdout, holdout
from lm.analysis.scaling.isoflop import budgets
from lm.analysis.scaling.report import Item, findings, scaling_report
from lm.analysis.scaling.runs import RunTable, table
from lm.analysis.style import BASELINE, COLOURS, SOFT, canvas, styled
from lm.analysis.tables import TableError, finished, numbers
from lm.analysis.text import Column

RATE = "train.optimizer.learning_rate"


def ladder_runs(runs: pd.DataFrame, value: str = "heldout_loss") -> RunTable:
    """The finished runs of an experiment as a table to fit, with FLOPs as 6 x parameters x tokens, like the optima."""
    good, dropped = finished(runs, value)
    frame = best_rates(pd.DataFrame(good).rename(columns={value: "loss"}))
    frame["exact_flops"] = numbers(frame, "flops")
    frame["flops"] = 6 * numbers(frame, "params") * numbers(frame, "tokens")
    made = table(frame, "6ND", "this experiment's runs")
    off = frame["exact_flops"] / frame["flops"]
    counted = f"Counted exactly, runs take {off.min():.2f} to {off.max():.2f} times 6 x parameters x tokens."
    return dataclasses.replace(made, notes=(*dropped, counted))


def best_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Of runs of one size and length the ones with the learning rate of the lowest mean loss."""
    if RATE not in frame.columns or len(set(frame[RATE])) < 2:
        return frame
    losses: dict[tuple[float, float], dict[float, list[float]]] = {}
    for row in frame.to_dict("records"):
        losses.setdefault((row["params"], row["tokens"]), {}).setdefault(row[RATE], []).append(row["loss"])
    best = {at: min(of, key=lambda rate: sum(of[rate]) / len(of[rate])) for at, of in losses.items()}
    keep = [best[row["params"], row["tokens"]] == row[RATE] for row in frame.to_dict("records")]
    return frame.loc[keep].reset_index(drop=True)


def ladder_report(
    *,
    title: str,
    question: str,
    runs: pd.DataFrame,
    law: str = "chinchilla",
    floor: float | None = None,
    foretell: bool = True,
    notes: Sequence[str] = (),
    command: str = "",
) -> Report:
    """The report of a ladder's runs (the table of an experiment). Raises TableError where too few are finished."""
    made = ladder_runs(runs)
    found = findings(made, fit(made, law))
    report = scaling_report(found, title=title, question=question, command=command)
    more = []
    if foretell:
        more.append(Section(heading="The largest budget, foretold", items=tuple(_foretold(made, law))))
    if floor is not None:
        more.append(Section(heading="The floor", items=_floor_items(found.boot, floor)))
    if notes:
        more.append(Section(heading="Of the sweep", items=tuple(notes)))
    at = next(i for i, s in enumerate(report.sections) if s.heading == "The law")
    sections = (*report.sections[:at], *more[:2], *report.sections[at:], *more[2:])
    return Report(title=report.title, sections=tuple(s for s in sections if s.items))


def _foretold(runs: RunTable, law: str) -> list[Item]:
    """What the law of the smaller budgets says of the largest."""
    labels, centres = budgets(runs)
    try:
        held = holdout(runs, law, max_flops=float(runs.column("flops")[labels == len(centres) - 1].min()))
    except TableError as error:
        return [f"The smaller budgets alone determine no law: {error}."]
    frame = foretold_table(held)
    inside = frame["inside"].sum()
    best = frame.loc[frame["loss"].idxmin()]
    words = (
        f"Fitted on the {len(held.fit.runs)} runs of smaller budgets alone, the law misses the {len(frame)} largest by "
        f"{held.mean_relative_error:.2%} on average ({held.bias:+.2%} with its sign); {inside} of {len(frame)} lie in "
        f"the 95% interval it gives them. The best of them has {best['loss']:.4f}, foretold {best['predicted']:.4f} "
        f"[{best['low']:.4f}, {best['high']:.4f}]."
    )
    columns = (
        Column("parameters", ("{params:si}",)),
        Column("tokens", ("{tokens:si}",)),
        Column("loss", ("{loss:.4f}",)),
        Column("foretold", ("{predicted:.4f} [{low:.4f}, {high:.4f}]",)),
        Column("error", ("{error:+.2%}",)),
    )
    return [
        words,
        Table(name="foretold", frame=frame, columns=columns, caption="95% intervals for new runs."),
        Plot(name="largest_budget", figure=foretold_figure(held, frame), caption="The largest budget."),
    ]


def foretold_table(held: Holdout) -> pd.DataFrame:
    """params, tokens, loss of the runs held out, with predicted, its 95% prediction interval, error and inside."""
    boot = held.fit.bootstrap(1000)
    columns = {name: held.tested.column(name) for name in held.fit.law.columns}
    low, high = bands(boot, columns, prediction=True)
    loss = held.tested.column("loss")
    return pd.DataFrame(
        {
            "params": held.tested.column("params"),
            "tokens": held.tested.column("tokens"),
            "loss": loss,
            "predicted": held.predicted,
            "low": low,
            "high": high,
            "error": held.relative_errors,
            "inside": (loss >= low) & (loss <= high),
        }
    ).sort_values("params", ignore_index=True)


@styled
def foretold_figure(held: Holdout, frame: pd.DataFrame) -> Figure:
    """The runs of the largest budget over their size, and what was foretold."""
    figure, (axes,) = canvas(8.2, 4.8)
    axes.fill_between(
        frame["params"], frame["low"], frame["high"], color=COLOURS[1], alpha=0.2, linewidth=0, label="95%, a new run"
    )
    axes.plot(frame["params"], frame["predicted"], color=COLOURS[1], label="foretold by the smaller budgets")
    axes.plot(frame["params"], frame["loss"], "o", color=BASELINE, label="found")
    axes.set_xscale("log")
    axes.set_xlabel("parameters")
    axes.set_ylabel("loss (nats/token)")
    axes.legend()
    axes.set_title(f"mean error {held.mean_relative_error:.2%}", color=SOFT)
    return figure


def _floor_items(boot: Bootstrap, floor: float) -> tuple[Item, ...]:
    name = boot.fit.law.floor
    if name not in boot.fit.params:
        return (f"The law {boot.fit.law.name} has no floor to compare with the source's {floor:.4f} nats.",)
    low, high = boot.interval(name)
    where = "inside" if low <= floor <= high else "outside"
    return (
        f"The source's entropy is {floor:.4f} nats a token: no model can do better. The law's {name} is "
        f"{boot.fit.params[name]:.4f} [{low:.4f}, {high:.4f}]: the truth lies {where} its 95% interval.",
    )
