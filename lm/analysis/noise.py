"""The report on seed noise: how large it is, where it comes from, and how many seeds an effect needs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lm.analysis.ablation import Item, provenance
from lm.analysis.figures import name_of
from lm.analysis.report import Code, Plot, Report, Section, Table
from lm.analysis.seeds import CAP, Source, components, correlation, deviation, pooled, seeds_for
from lm.analysis.style import COLOURS, SOFT, arm_styles, canvas, styled
from lm.analysis.tables import Row, TableError, finished, need
from lm.analysis.text import Column, either

Spread = tuple[float, float, float]  # a standard deviation and its interval

EFFECTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)  # in standard deviations of one arm
MOST = 1000  # seeds that a figure shows


def seeds_report(
    *,
    title: str,
    question: str,
    runs: pd.DataFrame,
    base: str,
    variant: str,
    order: str,
    command: str = "",
    value: str = "heldout_loss",
    notes: Sequence[str] = (),
) -> Report:
    """The report of runs that differ in seeds alone.

    Of arms `base` and `variant`, each seed has an initialisation and a data order of its own, and both arms share them.
    Further arms are runs of the base whose data order (the column `order`) is another seed's.
    Raises TableError for a missing column, or fewer than two finished runs of the base.
    """
    need(runs, [order], "run")
    good, dropped = finished(runs, value)
    by_arm = {arm: {r["seed"]: r[value] for r in good if r["arm"] == arm} for arm in (base, variant)}
    losses = list(by_arm[base].values())
    if len(losses) < 2:
        raise TableError(f"noise needs at least 2 finished runs of '{base}', got {len(losses)}")
    spread = deviation(losses)
    shared = [seed for seed in by_arm[base] if seed in by_arm[variant]]
    pairs = np.array([[by_arm[arm][seed] for seed in shared] for arm in (base, variant)]).reshape(2, -1)
    inside = deviation(pairs[1] - pairs[0])
    either_arm = (
        pooled(pairs[0], pairs[1]) if len(shared) > 1 else spread
    )  # a variant's noise may be larger than the base's
    table = crossed([r for r in good if r["arm"] != variant], base, order, value)
    sources = None if table is None else components(table, ("initialisation", "data order", "the two together"))
    asked: list[Item] = [question] if question else []
    asked += [Code(command)] if command else []
    known = either_arm[0] > 0
    said = [
        *_answer(spread, either_arm, inside, pairs, sources, base, variant),
        f"{len(good)} of {either(len(runs), 'run')} finished.",
    ]
    sections = [
        Section(heading="Question", items=tuple(asked)),
        Section(heading="Answer", items=tuple(said)),
        Section(heading="Where the noise comes from", items=tuple(_source_items(sources, table))),
        Section(heading="Seeds needed", items=tuple(_needed_items(either_arm, inside) if known else ())),
        Section(heading="Pairs", items=tuple(_pair_items(pairs, shared, base, variant, value)), terminal=False),
        Section(heading="Notes", items=tuple([*dropped, *notes])),
        Section(heading="Provenance", items=(provenance(runs, value, (order,)),), terminal=False),
    ]
    return Report(title=title, sections=tuple(s for s in sections if s.items))


def crossed(good: Sequence[Row], base: str, order: str, value: str) -> np.ndarray | None:
    """Losses by initialisation (rows) and data order (columns) where every one of the first met every one of the
    others; None where too few did, or a run of the table is missing."""
    cells = {(run["seed"], run[order]): run[value] for run in good}
    met = [run for run in good if run["arm"] != base]
    seeds, orders = sorted({run["seed"] for run in met}), sorted({run[order] for run in met})
    if min(len(seeds), len(orders)) < 2 or any((s, o) not in cells for s in seeds for o in orders):
        return None
    return np.array([[cells[s, o] for o in orders] for s in seeds])


def _answer(
    spread: Spread,
    either_arm: Spread,
    inside: Spread,
    pairs: np.ndarray,
    sources: Sequence[Source] | None,
    base: str,
    variant: str,
) -> list[str]:
    sd, low, high = spread
    said = [f"From seed to seed the loss of {base} has a standard deviation of {sd:.4f} nats [{low:.4f}, {high:.4f}]."]
    if sources is not None:
        parts = ", ".join(f"{100 * s.share:.0f}% {s.name} [{100 * s.low:.0f}, {100 * s.high:.0f}]" for s in sources)
        said.append(f"Of its variance are {parts}.")
    r, r_low, r_high = correlation(pairs[0], pairs[1])
    if math.isfinite(r):
        interval = f" [{r_low:+.2f}, {r_high:+.2f}]" if math.isfinite(r_low) else ""
        said.append(
            f"{base} and {variant} with the same seed correlate by {r:+.2f}{interval}: their difference has a standard "
            f"deviation of {inside[0]:.4f} inside a seed and of {math.sqrt(2) * either_arm[0]:.4f} between seeds."
        )
    if either_arm[0] > 0:
        effect = either_arm[0]
        end = f", {_count(seeds_for(effect, inside[0], True))} in pairs" if inside[0] > 0 else ""
        said.append(
            f"A difference of one standard deviation ({effect:.4f} nats, over both arms) needs "
            f"{_count(seeds_for(effect, effect))} seeds an arm{end}: then 4 tests of 5 find it, at a level of 5%."
        )
    return said


def _count(n: float) -> str:
    return f"more than {CAP}" if math.isinf(n) else f"{n:.0f}"


def _source_items(sources: Sequence[Source] | None, table: np.ndarray | None) -> list[Item]:
    if sources is None or table is None:
        return ["Not known: it takes a full table of at least 2 initialisations by 2 data orders."]
    frame = pd.DataFrame([vars(s) for s in sources])
    columns = (
        Column("source", ("{name}",)),
        Column("sd (nats)", ("{sd:.4f}",)),
        Column("share of the variance", ("{share:.0%} [{low:.0%}, {high:.0%}]",)),
    )
    caption = (
        f"Analysis of variance of {table.shape[0]} initialisations by {table.shape[1]} data orders, a run each; 95% "
        "intervals. What the two do together is what neither does alone."
    )
    return [Table(name="components", frame=frame, columns=columns, caption=caption)]


def needed_table(spread: Spread, inside: Spread) -> pd.DataFrame:
    """Seeds an arm for each of EFFECTS, unpaired and paired, each at the estimated sd and the ends of its interval.

    spread: of one arm over seeds; inside: of the differences of two arms inside seeds.
    """
    rows = []
    for effect in EFFECTS:
        row: dict[str, float] = {"effect_sd": effect, "effect": effect * spread[0]}
        for name, (sds, paired) in {"unpaired": (spread, False), "paired": (inside, True)}.items():
            for end, sd in zip(("", "_low", "_high"), sds, strict=True):
                row[name + end] = seeds_for(row["effect"], sd, paired) if sd > 0 else math.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _needed_items(spread: Spread, inside: Spread) -> list[Item]:
    frame = needed_table(spread, inside)
    columns = (
        Column("effect (sd)", ("{effect_sd:g}",)),
        Column("effect (nats)", ("{effect:.4f}",)),
        *(
            Column(name, (f"{{{name}:.0f}} [{{{name}_low:.0f}}, {{{name}_high:.0f}}]",))
            for name in ("unpaired", "paired")
        ),
    )
    caption = (
        "Seeds an arm for 80% power at a level of 5%, two-sided t tests, by the noncentral t distribution; in brackets "
        "with the ends of the standard deviation's interval. Paired: both arms run the same seeds."
    )
    figure = needed_figure(spread, inside)
    return [
        Table(name="needed", frame=frame, columns=columns, caption=caption),
        Plot(name="seeds_needed", figure=figure, caption="Bands: the ends of the standard deviation's 95% interval."),
    ]


@styled
def needed_figure(spread: Spread, inside: Spread) -> Figure:
    """Seeds an arm over the effect, unpaired and paired."""
    figure, (axes,) = canvas(8.2, 4.8)
    effects = spread[0] * np.geomspace(0.1, 10, 60)
    for colour, (name, sds, paired) in zip(
        COLOURS, (("unpaired", spread, False), ("paired", inside, True)), strict=False
    ):
        if not sds[0] > 0:
            continue
        middle, low, high = ([min(seeds_for(e, sd, paired), 10 * MOST) for e in effects] for sd in sds)
        axes.plot(effects, middle, color=colour, label=name)
        axes.fill_between(effects, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axvline(spread[0], color=SOFT, linewidth=1.0, linestyle=":")
    axes.annotate("one standard deviation", (spread[0], MOST), xytext=(4, -12), textcoords="offset points", color=SOFT)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1.8, MOST)
    at = [n for n in (2, 5, 10, 20, 50, 100, 200, 500, 1000) if n <= MOST]
    axes.set_yticks(at, [str(n) for n in at])
    axes.tick_params(axis="y", which="minor", left=False)
    axes.set_xlabel("difference between two arms (nats/token)")
    axes.set_ylabel("seeds an arm, 80% power at 5%")
    axes.legend()
    return figure


def _pair_items(pairs: np.ndarray, seeds: Sequence[Hashable], base: str, variant: str, value: str) -> list[Item]:
    if len(seeds) < 2:
        return []
    figure = pair_figure(pairs, base, variant, value)
    return [Plot(name="pairs", figure=figure, caption=f"A dot is a seed: what {base} and {variant} made of it.")]


@styled
def pair_figure(pairs: np.ndarray, base: str, variant: str, value: str = "heldout_loss") -> Figure:
    """The variant's loss over the base's, a dot for each seed."""
    figure, (axes,) = canvas(5.4, 4.8)
    style = arm_styles([base, variant], base)[variant]
    axes.plot(pairs[0], pairs[1], linestyle="", marker=style.marker, color=style.colour)
    axes.set_xlabel(f"{base}: {name_of(value)}")
    axes.set_ylabel(f"{variant}: {name_of(value)}")
    return figure
