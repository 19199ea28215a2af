"""The grid of scores: what is drawn is what was measured, families can be told apart, and nothing overlaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from lm.analysis.emergence.grid import family_marks, midpoints, score_grid
from lm.analysis.emergence.midpoints import Midpoint
from lm.analysis.emergence.published import COLUMNS, Scores, read_scores
from lm.analysis.emergence.scores import detectable
from lm.analysis.report import render

VENDORED = Path(__file__).parents[3] / "experiments" / "emergence" / "published.csv"
TASKS = ["parsinlu_qa", "ipa_transliterate", "arithmetic_3da"]
EXAMPLES = {"parsinlu_qa": 1050, "ipa_transliterate": 1003}


@pytest.fixture(scope="module")
def scores() -> Scores:
    return read_scores(VENDORED)


@pytest.fixture(scope="module")
def found(scores: Scores) -> dict[str, Midpoint]:
    return midpoints(scores.curves(), n=30)[0]


@pytest.fixture(scope="module")
def figure(scores: Scores, found: dict[str, Midpoint]) -> Figure:
    made = score_grid(scores, TASKS, examples=EXAMPLES, found=found)
    render(made, "png")  # lays it out
    return made


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left").strip(): axes for axes in figure.axes if axes.get_visible()}


def dots(axes: Axes) -> set[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_marker() not in ("None", "*", "")]
    return {(float(x), float(y)) for line in lines for x, y in np.asarray(line.get_xydata())}


def test_a_panel_for_each_curve_with_every_model_as_a_dot(scores: Scores, figure: Figure) -> None:
    drawn = panels(figure)
    curves = {one.name: one for one in scores.curves(tasks=TASKS)}
    assert list(drawn) == list(curves) and len(drawn) == 4
    for name, axes in drawn.items():
        assert dots(axes) == set(zip((10 ** curves[name].x).tolist(), curves[name].value.tolist(), strict=True))
        assert axes.get_xscale() == "log"


def test_lines_are_chance_the_fit_its_midpoint_and_what_can_be_told_from_chance(
    figure: Figure, found: dict[str, Midpoint]
) -> None:
    for name, axes in panels(figure).items():
        one = found[name]
        flat = {line.get_linestyle(): float(np.asarray(line.get_ydata())[0]) for line in axes.lines[:2]}
        assert flat[":"] == one.curve.chance
        stars = [line for line in axes.lines if line.get_marker() == "*"]
        ((x, y),) = np.asarray(stars[0].get_xydata())
        assert np.log10(x) == pytest.approx(one.at) and y == pytest.approx((one.fit.derived["top"] + flat[":"]) / 2)
        band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        assert np.log10([band.x0, band.x1]) == pytest.approx(one.interval)
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        task, metric = one.curve.task, one.curve.metric
        if task in EXAMPLES and metric != "bleu":
            assert float(np.asarray(dashed[0].get_ydata())[0]) == detectable(EXAMPLES[task], one.curve.chance)
        else:
            assert not dashed


def test_the_legend_names_every_family_once_and_what_the_lines_are(scores: Scores, figure: Figure) -> None:
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    families = {str(name) for one in scores.curves(tasks=TASKS) for name in one.family}
    assert len(names) == len(set(names)) and families < set(names)
    assert {"chance", "logistic fit", "its midpoint"} < set(names) - families and "Qwen2" not in names  # no FLOPs


def apart(boxes: list[Bbox]) -> bool:
    """Whether no two boxes overlap by a pixel or more both ways."""
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    return all(
        min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1 for a, b in pairs
    )  # fmt: skip


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("tasks", [["arithmetic_3da"], TASKS, None])
def test_nothing_overlaps_or_is_cut_off(
    scores: Scores, found: dict[str, Midpoint], tasks: list[str] | None, long: bool
) -> None:
    if long:  # as BIG-bench's tasks may be
        longer = {name: f"{name}:of a kind with a long description that fills its line" for name in TASKS}
        scores = replace(scores, frame=scores.frame.replace({"task": longer}))
        tasks = None if tasks is None else [longer[name] for name in tasks]
    made = score_grid(scores, tasks, found=found, examples={name: 1000 for name in scores.frame["task"]})
    made.set_dpi(50)
    made.draw_without_rendering()
    drawn = [axes for axes in made.axes if axes.get_visible()]
    titles = [axes._left_title.get_window_extent() for axes in drawn]  # type: ignore[attr-defined]
    frames = [axes.get_window_extent() for axes in drawn]
    legends = [legend.get_window_extent() for legend in made.legends]
    midpoints = [axes.texts[0].get_window_extent() for axes in drawn if axes.texts[0].get_text()]
    assert apart([*legends, *frames, *midpoints]) and apart([*legends, *frames, *titles])
    width, height = made.get_size_inches() * made.dpi
    for box in (*legends, *frames, *midpoints, *titles):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
    for axes, title in zip(drawn, titles, strict=True):  # the title's last line is empty: there the midpoint stands
        line = title.height / len(axes.get_title(loc="left").split("\n"))
        assert axes.texts[0].get_window_extent().y1 <= title.y0 + line + 2


def test_families_differ_and_keep_their_look_whatever_is_drawn(scores: Scores) -> None:
    marks = family_marks(scores)
    looks = [(mark["color"], mark["marker"], mark["markerfacecolor"]) for mark in marks.values()]
    assert len(set(looks)) == len(looks) == 25
    many = pd.DataFrame(
        [[f"m{i}", f"f{i}", 1, 1, 1, "t", 0, "acc", 0.5, 0.0] for i in range(98)], columns=list(COLUMNS)
    )
    hollow = family_marks(Scores(many))
    looks = [(mark["color"], mark["marker"], mark["markerfacecolor"]) for mark in hollow.values()]
    assert len(set(looks)) == 98
    one = {h.get_label(): h.get_marker() for h in score_grid(scores, ["MMLU"], found={}).legends[0].legend_handles}
    assert one["OPT"] == marks["OPT"]["marker"] and one["Pythia"] == marks["Pythia"]["marker"]


def test_few_models_are_dots_without_a_line(scores: Scores) -> None:
    few = scores.frame.loc[(scores.frame["family"] == "Llama") & (scores.frame["task"] == "MMLU")]
    only = replace(scores, frame=few)
    found, notes = midpoints(only.curves())
    assert not found and notes == ["No midpoint: 'MMLU' has 4 models with flops; a midpoint takes at least 5."]
    (axes,) = panels(score_grid(only)).values()
    assert len(dots(axes)) == 4 and not axes.patches and not any(line.get_marker() == "*" for line in axes.lines)


def test_over_parameters_models_without_flops_are_there(scores: Scores) -> None:
    (axes,) = panels(score_grid(scores, ["word_unscrambling"], x="params", found={})).values()
    assert len(dots(axes)) > 73 and axes.get_xlabel() == "parameters"
