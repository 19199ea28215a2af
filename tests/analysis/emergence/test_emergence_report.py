"""The report of an emergence experiment: what it says and draws is what was measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from lm.analysis.emergence.figures import Panel, over_loss_figure, panels_figure, profile_figure, short
from lm.analysis.emergence.measured import Measured
from lm.analysis.emergence.report import emergence_report
from lm.analysis.emergence.scores import wilson
from lm.analysis.report import Plot, Report
from lm.analysis.text import MISSING
from lm.sweep import Panel as PanelValue
from tests.analysis.emergence.made import runs, table

SIZES = (1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
EXACT = {x: 1 / (1 + (12_000 / x) ** 5) for x in SIZES}


def panel(*metrics: str, **options: Any) -> Panel:
    return PanelValue(title="a title", metrics=metrics, **options)


def addition() -> Measured:
    """Over sizes: exact match that jumps, of answers whose log-probability rises smoothly."""
    exact = [{x: EXACT[x] + seed / 1000 for x in SIZES} for seed in range(3)]
    soft = [{x: np.log10(x) + seed / 1000 for x in SIZES} for seed in range(3)]
    loss = [{x: 9 - np.log10(x) for x in SIZES}] * 3
    late = [{x: 0.25 for x in SIZES}] * 3
    mine = {"answers.exact": exact, "answers.logprob": soft, "heldout.loss": loss}
    counts = {"answers.examples": [dict.fromkeys(SIZES, 100)] * 3}
    found = table({"reversed": mine | counts, "plain": {"answers.exact": late, "heldout.loss": loss}})
    return Measured(found.frame, over_sizes=True, unit="parameters")


def training() -> Measured:
    steps = (1, 10, 100, 1000)
    curves = [
        dict(zip(steps, y, strict=True)) for y in ((0.0, 0.2, 0.9, 1.0), (0.0, 0.1, 0.2, 1.0), (0.1, 0.4, 0.5, 0.9))
    ]
    golds = {"positions.bigram": [dict.fromkeys(steps, v) for v in (0.5, 0.7)]}
    return table({"2 layers": {"heldout.accuracy": curves, "heldout.loss": curves, **golds}})


def report(measured: Measured, **more: Any) -> Report:
    made: dict[str, Any] = {
        "title": "addition",
        "question": "Is it a jump?",
        "command": "lm sweep run addition.py",
        "measured": measured,
        "over": "parameters",
        "panels": (panel("answers.exact"),),
        "runs": runs(measured.series or ["reversed"]),
    }
    return emergence_report(**made | more)


def axes_of(figure: Any) -> list[Axes]:
    return figure.axes


def curves_in(axes: Axes, thick: bool = True) -> list[tuple[list[float], list[float]]]:
    """The lines of medians, or those of seeds."""
    lines = [line for line in axes.lines if line.get_linestyle() != "None" and len(line.get_xdata()) > 2]  # type: ignore[arg-type]
    found = [line for line in lines if (line.get_linewidth() == 2.0) is thick]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in found]  # type: ignore[arg-type]


class TestReport:
    def test_claims_are_answered(self, tmp_path) -> None:
        judged = [("it jumps", "it jumped", True), ("it is slow", "it was fast", False), ("it is odd", "nothing", None)]
        made = report(addition(), judged=judged)
        text = " ".join(made.text().split())
        assert "Of 3 expectations 1 held, 1 did not, 1 can't be judged." in text
        assert "4 of 4 runs finished." in text
        claims = next(t for t in made.tables if t.name == "claims")
        assert claims.cells == [
            ["it jumps", "yes", "it jumped"], ["it is slow", "no", "it was fast"],
            ["it is odd", "can't be said", "nothing"],
        ]  # fmt: skip
        page = made.write(tmp_path).read_text()
        for said in (
            "Is it a jump?",
            "lm sweep run addition.py",
            "it jumps",
            "it was fast",
            "yes",
            "can&#39;t be said",
        ):
            assert said in page
        assert (tmp_path / "panels.png").stat().st_size > 5000
        assert pd.read_csv(tmp_path / "claims.csv")["holds"].tolist() == ["yes", "no", "can't be said"]

    def test_what_was_measured_last(self) -> None:
        """A row a series, a column a panel of one metric, and no number where a panel is about others."""
        made = report(
            table({"a": {"x.m": [{1: 9.0, 2: 0.5}, {2: 1.5}]}, "b": {"x.m": [{2: 3.0}], "x.n": [{2: 4.0}]}}),
            panels=(panel("x.m"), panel("x.m", series=("b",)), panel("x.n"), panel("x.m", "x.n"), panel("x.lost")),
        )  # fmt: skip
        ends = next(t for t in made.tables if t.name == "ends")
        assert ends.cells == [["a", "1.0000 ± 0.7071", MISSING, MISSING], ["b", "3.0000", "3.0000", "4.0000"]]

    def test_a_single_series_has_its_ends_in_the_figure(self) -> None:
        assert "ends" not in [t.name for t in report(training()).tables]

    def test_all_that_held(self) -> None:
        made = report(addition(), judged=[("it jumps", "it jumped", True)])
        assert "Of 1 expectation 1 held, 0 did not." in made.text()

    def test_a_jump_of_the_metric_is_told_from_one_of_the_model(self) -> None:
        asked = [("reversed", "answers.exact", "answers.logprob"), ("reversed", "answers.exact", "answers.exact")]
        made = report(addition(), asked=asked)
        text = " ".join(made.text().split())
        assert "reversed: answers.exact jumps between" in text and "parameters; answers.logprob is smooth" in text
        assert "the jump is the metric's." in text and "the jump is real, both break at one place." in text
        frame = next(t for t in made.tables if t.name == "verdicts").frame
        assert frame["metric"].tolist() == ["answers.exact", "answers.logprob"]
        assert frame["kind"].tolist() == ["jump", "smooth"]
        assert 10_000 < frame["at"][0] < 15_000 and frame["low"][0] <= frame["at"][0] <= frame["high"][0]
        assert [p.name for p in made.plots] == ["panels", "over_loss"]

    def test_a_metric_that_isnt_there_stops_nothing(self) -> None:
        made = report(
            addition(), asked=[("reversed", "answers.exact", "answers.nothing"), ("rev", "answers.exact", "a.b")],
            panels=(panel("answers.nothing", "answers.exact", golds=("positions.nothing",)),),
        )  # fmt: skip
        text = " ".join(made.text().split())
        assert "answers.nothing not known: fewer than 6 places were measured: undecided" in text
        (axes,) = axes_of(made.plots[0].figure)
        assert [t.get_text().replace("\n", " ") for t in axes.texts] == [
            "not measured: answers.nothing, positions.nothing"
        ]
        assert len(curves_in(axes)) == 2

    def test_before_any_run_has_finished(self) -> None:
        table_of_runs = runs(["reversed"]).assign(status="running")
        made = report(table({}), runs=table_of_runs, judged=[("it jumps", "not yet", None)])
        text = " ".join(made.text().split())
        assert "0 of 2 runs finished." in text and "Left out: reversed, seeds 0, 1: status 'running'." in text
        assert not made.plots and "There is nothing to draw yet." in made.html()

    def test_runs_behind_the_numbers_are_named(self) -> None:
        provenance = next(t for t in report(addition()).tables if t.name == "runs").frame
        assert set(provenance["id"]) == {f"{arm}-{seed}" for arm in ("reversed", "plain") for seed in (0, 1)}

    def test_the_profile_is_of_the_runs_ends(self) -> None:
        rows = [
            {"arm": "2 layers", "seed": seed, "step": 9, "split": "estimates", "name": name, "index": i, "value": v}
            for seed in (0, 1)
            for name, scale in (("model", 1.0 + seed), ("ridge", 3.0), ("accuracy", 0.5))
            for i, v in enumerate(np.array([3.0, 2.0, 1.5]) * scale)
        ]
        made = report(training(), over="step", panels=(panel("heldout.accuracy"),), profile=pd.DataFrame(rows))
        plot: Plot = next(p for p in made.plots if p.name == "profile")
        (axes,) = axes_of(plot.figure)
        assert axes.get_ylabel() == "estimates" and axes.get_title("left") == "2 layers"
        assert curves_in(axes) == [
            ([0, 1, 2], [4.5, 3.0, 2.25]),
            ([0, 1, 2], [9.0, 6.0, 4.5]),
        ]  # no share beside errors
        assert curves_in(axes, thick=False)[:2] == [([0, 1, 2], [3.0, 2.0, 1.5]), ([0, 1, 2], [6.0, 4.0, 3.0])]
        assert [t.get_text() for t in plot.figure.legends[0].texts] == ["model", "ridge"]


class TestPanels:
    def test_lines_are_the_seeds_and_their_median(self) -> None:
        (axes,) = axes_of(panels_figure(training(), (panel("heldout.accuracy"),), "step"))
        x = [1, 10, 100, 1000]
        assert curves_in(axes) == [(x, [0.0, 0.2, 0.5, 1.0])]
        assert curves_in(axes, thick=False) == [
            (x, [0.0, 0.2, 0.9, 1.0]), (x, [0.0, 0.1, 0.2, 1.0]), (x, [0.1, 0.4, 0.5, 0.9])
        ]  # fmt: skip
        assert axes.get_title("left") == "a title" and axes.get_xlabel() == "step" and axes.get_xscale() == "log"
        assert axes.get_ylim() == (-0.04, 1.04) and axes.get_legend() is None

    def test_series_that_a_panel_isnt_about_are_left_out(self) -> None:
        both = table({"a": {"x.m": [{1: 0.1, 2: 0.2, 3: 0.3}]}, "b": {"x.m": [{1: 0.4, 2: 0.5, 3: 0.6}]}})
        first, second = axes_of(panels_figure(both, (panel("x.m"), panel("x.m", series=("b",))), "step"))
        assert [y for _, y in curves_in(first)] == [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]
        assert [y for _, y in curves_in(second)] == [[0.4, 0.5, 0.6]]
        assert second.lines[0].get_color() == first.lines[1].get_color()

    def test_what_theory_gives_is_the_mean_of_its_ends(self) -> None:
        made = panel("heldout.loss", golds=("positions.bigram",), levels={"chance": 0.3}, log=True)
        (axes,) = axes_of(panels_figure(training(), (made,), "step"))
        flat = {str(line.get_label()): line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 2}  # type: ignore[arg-type, index]
        assert flat == {"bigram": pytest.approx(0.6), "chance": 0.3}
        assert axes.get_yscale() == "log"
        legend = axes.get_legend()
        assert legend is not None and [t.get_text() for t in legend.texts] == ["bigram", "chance"]

    def test_over_sizes_seeds_are_dots(self) -> None:
        figure = panels_figure(addition(), (panel("answers.exact"), panel("answers.logprob")), "parameters")
        first, second = axes_of(figure)
        medians = curves_in(first)
        assert medians[0][0] == list(SIZES) and medians[0][1] == [pytest.approx(EXACT[x] + 0.001) for x in SIZES]
        dots = [line for line in first.lines if line.get_linestyle() == "None"]
        assert len(dots) == 6 and {line.get_marker() for line in dots} == {"o", "s"}
        assert [t.get_text() for t in figure.legends[0].texts] == ["reversed", "plain"]
        assert len(curves_in(second)) == 1  # the other arm has no log-probability
        assert first.get_xscale() == "log" and first.get_xlabel() == "parameters"

    def test_what_so_few_examples_cant_tell_from_nothing_is_shaded(self) -> None:
        figure = panels_figure(addition(), (panel("answers.exact"), panel("answers.logprob")), "parameters")
        first, second = axes_of(figure)
        (band,) = first.patches
        assert band.get_y() + band.get_height() == pytest.approx(wilson(0, 100)[1])  # type: ignore[attr-defined]
        assert band.get_label() == "can't be told from 0" and not second.patches

    def test_metrics_and_series_are_told_apart(self) -> None:
        curve = [{1: 0.0, 2: 1.0, 3: 2.0}]
        many = table({arm: {f"kinds.loss_{k}": curve for k in range(5)} for arm in ("a", "b")})
        (axes,) = axes_of(panels_figure(many, (panel("kinds.loss_*"),), "step"))
        looks = {(to_hex(line.get_color()), str(line.get_linestyle())) for line in axes.lines}
        assert len(looks) == 10 and len({dash for _, dash in looks}) == 2
        legend = axes.get_legend()
        assert legend is not None and [t.get_text() for t in legend.texts] == [f"loss {k}" for k in range(5)]
        (axes,) = axes_of(panels_figure(many, (panel("kinds.loss_0", "kinds.loss_1"),), "step"))
        looks = {(to_hex(line.get_color()), str(line.get_linestyle())) for line in axes.lines}
        assert len(looks) == 4 and len({colour for colour, _ in looks}) == 2

    def test_names_without_what_they_have_in_common(self) -> None:
        both = ["answers.exact", "answers.token_accuracy"]
        assert [short(m, both) for m in both] == ["exact", "token accuracy"]
        both = ["train.loss", "heldout.loss"]
        assert [short(m, both) for m in both] == ["train", "heldout"]
        both = ["train.loss", "answers.exact_match"]
        assert [short(m, both) for m in both] == ["train loss", "answers exact match"]


class TestOtherFigures:
    def test_over_loss_each_point_is_a_checkpoint(self) -> None:
        figure = over_loss_figure(addition(), ["answers.exact"])
        assert figure is not None
        (axes,) = axes_of(figure)
        ours, theirs = axes.lines
        assert sorted(ours.get_xdata()) == pytest.approx(sorted(3 * [9 - np.log10(x) for x in SIZES]))  # type: ignore[arg-type]
        exact = [EXACT[x] + seed / 1000 for seed in range(3) for x in SIZES]
        assert list(ours.get_ydata()) == pytest.approx(exact) and set(theirs.get_ydata()) == {0.25}  # type: ignore[arg-type]
        left, right = axes.get_xlim()
        assert left > right  # progress is to the right

    def test_over_loss_needs_both(self) -> None:
        assert over_loss_figure(addition(), ["answers.nothing"]) is None
        without = addition().frame
        without = without.loc[without["metric"] != "heldout.loss"]
        assert over_loss_figure(Measured(without), ["answers.exact"]) is None

    def test_a_profile_has_a_panel_for_each_arm(self) -> None:
        rows = [
            {"arm": arm, "seed": 0, "step": 9, "split": "p", "name": "loss", "index": i, "value": v}
            for arm, values in {"a": (1.0, 2.0, 3.0), "b": (100.0, 50.0, 40.0)}.items()
            for i, v in enumerate(values)
        ]
        first, second = axes_of(profile_figure(pd.DataFrame(rows), "p"))
        assert curves_in(first) == [([0, 1, 2], [1, 2, 3])] and curves_in(second) == [([0, 1, 2], [100, 50, 40])]
        assert first.get_yscale() == second.get_yscale() == "log" and first.get_ylim() == second.get_ylim()
