"""The report of published scores: where each task's score rises, and what compute alone doesn't say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from lm.analysis.ablation import Item
from lm.analysis.emergence.grid import midpoints, score_grid
from lm.analysis.emergence.midpoints import Lead, Midpoint, Spread, lead, spread_at
from lm.analysis.emergence.published import GRADED, WORDS, Curve, Scores, X
from lm.analysis.emergence.scores import detectable
from lm.analysis.report import Code, Plot, Report, Section, Table
from lm.analysis.tables import TableError
from lm.analysis.text import Column, either
from lm.errors import unknown

WINDOW = 0.5  # decades of x within which models count as equal


def scores_report(
    scores: Scores,
    *,
    title: str,
    question: str,
    command: str = "",
    x: X = "flops",
    tasks: Sequence[str] | None = None,
    examples: Mapping[str, int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """The report of scores over `x`, of all tasks or of `tasks` (see `Scores.curves`).

    examples: how many questions a task has, where that is known. resamples, seed: of the midpoints' intervals.
    Raises TableError for names that aren't there and where no model has such an x.
    """
    for task in examples or ():
        if task not in set(scores.frame["task"]):
            raise TableError(unknown(task, scores.frame["task"].unique(), f"examples: {scores.source} has no task"))
    curves = scores.curves(x, tasks)
    found, few = midpoints(curves, resamples, seed)
    spreads = list(_spreads(curves))
    leads = [lead(*pair, resamples, seed) for pair in _pairs(curves, found)]
    asked: list[Item] = [question] if question else []
    asked += [Code(command)] if command else []
    words = WORDS[x]
    said = [*_midpoint_words(found, words), *_spread_words(spreads, words), *(_lead_words(one, found) for one in leads)]
    caption = (
        f"Dots: models, by family. A star is half-way from chance to the fitted upper end, over {words}; the band is "
        "its interval."
    )
    figure = score_grid(scores, tasks, x, examples, found)
    sections = [
        Section(heading="Question", items=tuple(asked)),
        Section(heading="Answer", items=tuple(said)),
        Section(heading="Midpoints", items=(_midpoint_table(curves, found, examples or {}),)),
        Section(
            heading=f"Scores over {words}", items=(Plot(name="scores", figure=figure, caption=caption),), terminal=False
        ),
        Section(heading="Models of equal size", items=(_spread_table(spreads, words),) if spreads else ()),
        Section(heading="Notes", items=tuple([*scores.notes, *scores.left_out(x), *few])),
        Section(heading="Source", items=(_score_table(scores),), terminal=False),
    ]
    return Report(title=title, sections=tuple(s for s in sections if s.items))


# ---- in words ------------------------------------------------------------------------------------------------


def _midpoint_words(found: Mapping[str, Midpoint], words: str) -> list[str]:
    known = sorted((one for one in found.values() if one.known), key=lambda one: one.at)
    if not known:
        return [f"For no task is it known from these models at how many {words} its score is half-way up."]
    parts = [f"{one.curve.name} at 10^{one.at:.2f} {_interval(one.interval)}" for one in known]
    said = [
        f"Scores are half-way from chance to their upper end, the earliest first: {', '.join(parts)} {words} (95% "
        "intervals of the exponent)."
    ]
    others = [name for name, one in found.items() if not one.known]
    if others:
        said.append(f"The intervals of {', '.join(others)} reach beyond the models: their midpoints aren't known.")
    return said


def _spread_words(spreads: Sequence[Spread], words: str) -> list[str]:
    if not spreads:
        return []
    most = max(spreads, key=lambda one: one.difference)
    curve, worse, better = most.curve, most.worse, most.better
    return [
        f"Equal {words} don't make equal scores: on {curve.name} {curve.model[worse]} ({10 ** curve.x[worse]:.2g}) has "
        f"{curve.value[worse]:.3f} and {curve.model[better]} ({10 ** curve.x[better]:.2g}) has "
        f"{curve.value[better]:.3f}, the largest difference between families within a factor {10**WINDOW:.1f}."
    ]


def _lead_words(one: Lead, found: Mapping[str, Midpoint]) -> str:
    soft, hard = found[one.soft.name], found[one.hard.name]
    before = f"{abs(one.decades):.2f} decades {'earlier' if one.decades >= 0 else 'later'}"
    certain = "" if one.low > 0 or one.high < 0 else ": which of them is first isn't certain"
    return (
        f"{one.soft.task}: by {one.soft.metric} the same answers are half-way up {before} than by {one.hard.metric} "
        f"[{one.low:+.2f}, {one.high:+.2f}] ({either(len(one.soft.x), 'model')} with both metrics){certain}. Each on "
        f"all of its own models: 10^{soft.at:.2f} and 10^{hard.at:.2f}."
    )


def _interval(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]"


# ---- what is compared ----------------------------------------------------------------------------------------


def _spreads(curves: Sequence[Curve]) -> Iterator[Spread]:
    """The largest difference at equal size of each curve that has models of two families there."""
    for curve in curves:
        try:
            yield spread_at(curve, WINDOW)
        except TableError:
            continue  # one family: there is nothing to compare


def _pairs(curves: Sequence[Curve], found: Mapping[str, Midpoint]) -> Iterator[tuple[Curve, Curve]]:
    """A graded metric and one of right answers of one task and number of shots, where both have midpoints."""
    known = [curve for curve in curves if curve.name in found and found[curve.name].known]
    for soft in known:
        for hard in known:
            same = (soft.task, f"{soft.shots:g}") == (hard.task, f"{hard.shots:g}")
            if same and soft.metric in GRADED and hard.metric not in GRADED:
                yield soft, hard


# ---- tables --------------------------------------------------------------------------------------------------


def _midpoint_table(curves: Sequence[Curve], found: Mapping[str, Midpoint], examples: Mapping[str, int]) -> Table:
    rows = []
    for curve in curves:
        count = examples.get(curve.task) if curve.metric not in GRADED else None
        row = {"name": curve.name, "metric": curve.metric, "chance": curve.chance, "models": len(set(curve.model))}
        row |= {"families": len(set(curve.family)), "examples": count}
        row |= {"least": math.nan if count is None else detectable(count, curve.chance)}
        if (one := found.get(curve.name)) is not None:
            ends = {"families": one.by_families, "models": one.by_models}
            row |= {
                f"by_{name}_{end}": value for name, pair in ends.items() for end, value in zip("lh", pair, strict=True)
            }
            row |= {
                "midpoint": one.at if math.isfinite(one.at) else math.nan,
                "slope": one.fit.derived["slope"],
                "top": one.fit.derived["top"],
            }
            row |= {"error": one.error, "known": one.known}
        rows.append(row)
    columns = (
        Column("task", ("{name}",)),
        Column("metric", ("{metric}",)),
        Column("chance", ("{chance:g}",)),
        Column("models", ("{models:d}",)),
        Column("families", ("{families:d}",)),
        Column("midpoint", ("10^{midpoint:.2f}",)),
        Column("over families", ("[{by_families_l:.2f}, {by_families_h:.2f}]",)),
        Column("over models", ("[{by_models_l:.2f}, {by_models_h:.2f}]",)),
        Column("gain a decade", ("{slope:.2f}",)),
        Column("upper end", ("{top:.2f}",)),
        Column("rms error", ("{error:.3f}",)),
        *((Column("least told from chance", ("{least:.4f}",)),) if examples else ()),
    )
    caption = (
        "Least squares of chance + (u - chance) / (1 + exp(-k (log10 x - m))) and u, at most 1, fitted. "
        "Midpoint: m, with 95% intervals over resamples of families and of models. Gain a decade: there."
    )
    return Table(name="midpoints", frame=pd.DataFrame(rows), columns=columns, caption=caption)


def _spread_table(spreads: Sequence[Spread], words: str) -> Table:
    rows = []
    for one in spreads:
        row = {"name": one.curve.name, "difference": one.difference}
        for which, i in (("worse", one.worse), ("better", one.better)):
            row |= {which: one.curve.model[i], f"{which}_family": one.curve.family[i]}
            row |= {f"{which}_x": 10 ** one.curve.x[i], f"{which}_value": one.curve.value[i]}
        rows.append(row)
    columns = [Column("task", ("{name}",)), Column("difference", ("{difference:.3f}",))]
    for which in ("worse", "better"):
        columns.append(Column(f"{which} model", (f"{{{which}}}",)))
        columns.append(Column("its score", (f"{{{which}_value:.3f}}",)))
        columns.append(Column(f"its {words}", (f"{{{which}_x:.2e}}",)))
    caption = f"The two models of different families, within a factor {10**WINDOW:.1f}, whose scores differ most."
    return Table(name="spreads", frame=pd.DataFrame(rows), columns=tuple(columns), caption=caption)


def _score_table(scores: Scores) -> Table:
    columns = (
        *(Column(name, (f"{{{name}}}",)) for name in ("model", "family")),
        *(Column(name, (f"{{{name}:si}}",)) for name in ("params", "tokens")),
        Column("FLOPs", ("{flops:.3g}",)),
        *(Column(name, (f"{{{name}}}",)) for name in ("task", "metric")),
        Column("value", ("{value:.4f}",)),
    )
    return Table(name="values", frame=scores.frame, columns=columns, caption=f"All scores, from {scores.source}.")
