"""The report of an emergence experiment: what was expected, what was seen, and whether a jump is the model's."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lm.analysis.ablation import Item, provenance
from lm.analysis.emergence.figures import Panel, over_loss_figure, panels_figure, profile_figure, shown
from lm.analysis.emergence.measured import Measured
from lm.analysis.emergence.verdict import STRONG, CurveVerdict, bimodal_words, curve_verdict, verdict
from lm.analysis.paired import mean_interval
from lm.analysis.report import Code, Plot, Report, Section, Table
from lm.analysis.tables import TableError, finished
from lm.analysis.text import Column, either

Asked = tuple[str, str, str]  # series, hard metric, soft metric
Judged = tuple[str, str, bool | None]  # expected, seen, whether it holds
HOLDS = {True: "yes", False: "no", None: "can't be said"}


def emergence_report(
    *,
    title: str,
    question: str,
    measured: Measured,
    over: str,
    panels: Sequence[Panel],
    runs: pd.DataFrame,
    judged: Sequence[Judged] = (),
    asked: Sequence[Asked] = (),
    profile: pd.DataFrame | None = None,
    command: str = "",
    notes: Sequence[str] = (),
) -> Report:
    """The report of what runs measured over training or sizes (`over`: the words of the x axis).

    judged: claims with what was seen of them. asked: where a hard metric's jump is to be told from an artefact by a
    soft metric of the same answers. profile: rows (arm, seed, name, index, value) of one measure's lists at the end.
    """
    good, dropped = finished(runs, "heldout_loss")
    question_items: list[Item] = [question] if question else []
    question_items += [Code(command)] if command else []
    found = {(s, m): _verdict(measured, s, m) for s, *pair in asked for m in pair}
    said = [
        f"{s}: {verdict(found[s, hard], found[s, soft], hard, soft, measured.unit).sentence}."
        for s, hard, soft in asked
    ]
    held = [holds for _, _, holds in judged]
    counted = f"Of {either(len(held), 'expectation')} {held.count(True)} held, {held.count(False)} did not"
    counted += f", {held.count(None)} can't be judged" if None in held else ""
    answer = [*([f"{counted}."] if judged else []), *said, f"{len(good)} of {either(len(runs), 'run')} finished."]
    sections = [
        Section(heading="Question", items=tuple(question_items)),
        Section(heading="Answer", items=tuple(answer)),
        Section(heading="Expected and seen", items=(_claims_table(judged),) if judged else ()),
        Section(heading="In the end", items=_ends(measured, panels)),
        Section(heading="Curves", items=tuple(_figures(measured, panels, over, profile, asked)), terminal=False),
        Section(heading="Jumps", items=(_verdict_table(found, over),) if found else ()),
        Section(heading="Notes", items=tuple([*dropped, *notes])),
        Section(heading="Provenance", items=(provenance(runs, "heldout_loss"),), terminal=False),
    ]
    return Report(title=title, sections=tuple(s for s in sections if s.items))


def _verdict(measured: Measured, series: str, metric: str) -> CurveVerdict:
    try:
        return curve_verdict(*measured.matrix(metric, series), least=measured.told_from_zero(metric, series))
    except TableError:  # nothing of that name was measured
        return CurveVerdict(kind="unknown")


def _claims_table(judged: Sequence[Judged]) -> Table:
    frame = pd.DataFrame([(e, s, HOLDS[h]) for e, s, h in judged], columns=pd.Index(["expected", "seen", "holds"]))
    columns = tuple(Column(name, ("{" + name + "}",)) for name in ("expected", "holds", "seen"))
    caption = (
        "Expected by the experiment's file. Each seed is judged by itself, and all have to agree, "
        "unless it is said that a mean is judged. Brackets: the range over seeds."
    )
    return Table(name="claims", frame=frame, columns=columns, caption=caption)


def _ends(measured: Measured, panels: Sequence[Panel]) -> tuple[Item, ...]:
    """A row a series, a column a panel of one metric, with no number where the panel is about other series."""
    single = [p for p in panels if len(p.metrics) == 1 and p.metrics[0] in measured.metrics]
    if not single or len(measured.series) < 2:
        return ()
    frame = []
    for series in measured.series:
        row: dict[str, object] = {"series": series}
        for k, panel in enumerate(single):
            if series in shown(panel, measured.series):
                ends = list(measured.ends(panel.metrics[0], series).values())
                row[f"mean_{k}"], row[f"sd_{k}"], _, _ = mean_interval(ends)
        frame.append(row)
    forms = [(f"{{mean_{k}:.4f}} ± {{sd_{k}:.4f}}", f"{{mean_{k}:.4f}}") for k in range(len(single))]
    columns = [Column("series", ("{series}",)), *(Column(p.title, f) for p, f in zip(single, forms, strict=True))]
    caption = "Means over seeds of what was measured last, ± standard deviation over seeds."
    return (Table(name="ends", frame=pd.DataFrame(frame), columns=tuple(columns), caption=caption),)


def _figures(
    measured: Measured, panels: Sequence[Panel], over: str, profile: pd.DataFrame | None, asked: Sequence[Asked]
) -> list[Item]:
    if not len(measured.frame):
        return ["There is nothing to draw yet."]
    each = "Dots: runs; lines: medians over seeds." if over == "parameters" else "Thin: seeds; thick: their medians."
    found: list[Item] = [Plot(name="panels", figure=panels_figure(measured, panels, over), caption=each)]
    if profile is not None and len(profile):
        split = str(profile["split"].iloc[0])
        caption = "At the end of training. Thin: runs; thick: their mean."
        found.append(Plot(name="profile", figure=profile_figure(profile, split), caption=caption))
    metrics = list(dict.fromkeys(name for _, hard, soft in asked for name in (hard, soft)))
    figure = over_loss_figure(measured, metrics) if metrics else None
    if figure is not None:
        caption = "The same numbers over the loss of the same checkpoints: what emerges at one loss lies on one curve."
        found.append(Plot(name="over_loss", figure=figure, caption=caption))
    return found


def _verdict_table(found: dict[tuple[str, str], CurveVerdict], over: str) -> Table:
    rows = [
        {"series": series, "metric": metric, "kind": v.kind, "at": v.break_at, "low": v.low, "high": v.high}
        | {"width": v.width, "margin": v.margin, "seeds": "" if v.modes is None else bimodal_words(v.modes)}
        for (series, metric), v in found.items()
    ]
    columns = (
        Column("series", ("{series}",)),
        Column("metric", ("{metric}",)),
        Column("shape", ("{kind}",)),
        Column(f"breaks at ({over})", ("{at:si} [{low:si}, {high:si}]", "{at:si}")),
        Column("decades from 10 to 90%", ("{width:.2f}",)),
        Column("evidence", ("{margin:+.1f}",)),
        Column("seeds at the break", ("{seeds}",)),
    )
    caption = (
        "Shapes fitted to the means over seeds. Evidence: how much lower BIC is for the best broken shape than for the "
        f"best smooth one; a break is told from {STRONG:g} on. Brackets: 95%."
    )
    return Table(name="verdicts", frame=pd.DataFrame(rows), columns=columns, caption=caption)
