"""Loss over compute, models that count, and what layers say of themselves, in the report of an ablation."""

from __future__ import annotations

import importlib.util
import pathlib

import numpy as np
import pandas as pd
import pytest

from lm.analysis import ablation_report
from lm.analysis.compute import count_table, loss_over_flops
from lm.analysis.style import arm_styles
from lm.analysis.watched import watched

_spec = importlib.util.spec_from_file_location("tables", pathlib.Path(__file__).with_name("tables.py"))
assert _spec and _spec.loader
tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tables)

RUNS = tables.runs_table(tables.ATTENTION)
CURVES = tables.curves_table(RUNS)
TAKEN = {"tokens": 1000, "ngrams": 300, "seconds": 0.5}
BITS = {(5, 0): 2.5, (5, 1): 2.52, (2, 0): 2.8, (2, 1): 2.82}
COUNTED = pd.DataFrame([{"order": o, "seed": s, "bits_per_byte": bits, **TAKEN} for (o, s), bits in BITS.items()])


def report(runs=RUNS, curves=CURVES, counted=None):
    return ablation_report(title="T", question="Q?", baseline="MHA", runs=runs, curves=curves, counted=counted)


def test_counted_models_are_a_table_and_levels_of_the_figure() -> None:
    whole = report(counted=COUNTED)
    frame = next(table.frame for table in whole.tables if table.name == "counted")
    assert frame["order"].tolist() == [2, 5] and frame["n"].tolist() == [2, 2]
    assert frame["bits_per_byte"].tolist() == pytest.approx([2.81, 2.51])
    assert frame["bits_per_byte_sd"].tolist() == pytest.approx([0.02 / np.sqrt(2)] * 2)
    figure = next(plot.figure for plot in whole.plots if plot.name == "loss_over_flops")
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words[:2] == ["2-gram, 0.5 s", "5-gram, 0.5 s"] and set(words[2:]) == set(tables.ATTENTION)
    low, high = figure.axes[0].get_ylim()
    assert low < 2.51 and high > 2.0 / np.log(2)


def test_compute_is_shown_where_arms_read_different_amounts_of_text() -> None:
    assert "loss_over_flops" not in {plot.name for plot in report().plots}
    longer = RUNS.assign(tokens=[t + (arm == "MQA") for t, arm in zip(RUNS["tokens"], RUNS["arm"], strict=True)])
    assert "loss_over_flops" in {plot.name for plot in report(longer).plots}


def test_every_seed_is_a_line_of_the_figure() -> None:
    figure = loss_over_flops(CURVES, count_table(COUNTED), arm_styles(list(tables.ATTENTION), "MHA"))
    arms, seeds = CURVES["arm"].nunique(), CURVES["seed"].nunique()
    assert len(figure.axes[0].lines) == arms * (seeds + 1) + 2


def test_what_is_watched_is_the_mean_of_the_last_quarter() -> None:
    loads = {1: 5.0, 50: 5.0, 75: 5.0, 80: 1.0, 100: 1.0}
    rows = [
        {"arm": "experts", "seed": seed, "split": "train", "step": step, "moe/load": load + seed}
        for seed in (0, 1)
        for step, load in loads.items()
    ]
    rows += [{"arm": "dense", "seed": 0, "split": "train", "step": 100}]
    rows += [{"arm": "experts", "seed": 0, "split": "heldout", "step": 100, "moe/load": 99.0}]
    table = watched(pd.DataFrame(rows)).set_index("arm")
    assert table.loc["experts", "moe/load"] == pytest.approx(1.5)
    assert table.loc["experts", "moe/load sd"] == pytest.approx(np.sqrt(0.5))
    assert np.isnan(table.loc["dense", "moe/load"])


def test_the_report_shows_what_is_watched_and_a_dash_for_arms_without_it() -> None:
    curves = CURVES.assign(**{"moe/load": np.where(CURVES["arm"] == "MQA", 1.25, np.nan)})
    (table,) = [table for table in report(curves=curves).tables if table.name == "watched"]
    cells = {row[0]: row[1] for row in table.cells}
    assert cells["MQA"] == "1.250 ± 0.000" and cells["MHA"] == "-"
    assert "watched" not in {table.name for table in report().tables}
