"""Ladders: which runs they are, and the report of their law."""

import numpy as np
import pandas as pd
import pytest

from lm.analysis.scaling.ladder import RATE, best_rates, ladder_report
from lm.config import ConfigError, replace
from lm.sweep import Ladder, Rung, flops_of, planned_ladder, rungs
from lm.train import mup
from tests.analysis.scaling import made
from tests.sweep.toy import tiny

BASE = mup(replace(tiny(), {"model.width": 32, "model.block.ff.hidden": 64, "train.schedule.warmup": 4}), base_width=16)


def test_rungs_spend_their_budget_within_the_ratio():
    budgets = (1e10, 4e10)
    found = rungs(BASE, (16, 32, 64), budgets, ratio=(0.5, 400))
    ladder = Ladder(base=BASE, rungs=found)
    for run, _ in ladder.arms_resolved().values():
        params, tokens = run.model.cost(run.data.length).params, run.tokens
        assert 0.5 <= tokens / params <= 400
        assert min(abs(6 * params * tokens / budget - 1) for budget in budgets) < 0.5 / run.train.steps
        assert run.train.parametrization.base_width == 16
        assert run.train.schedule.warmup == pytest.approx(run.train.steps / 4, abs=1)
    assert len(rungs(BASE, (16, 32, 64), budgets, ratio=(1e-9, 1e-8))) == 0
    with pytest.raises(ConfigError, match="two different rungs"):
        Ladder(base=BASE, rungs=(Rung(width=16, steps=3),))


def test_a_planned_ladder_keeps_to_its_budget():
    ladder = planned_ladder(BASE, 1e12, made.TRUE, widths=(16, 32, 64))
    spent = 0.0
    for run, _ in ladder.arms_resolved().values():
        spent += 6 * run.model.cost(run.data.length).params * run.tokens
    assert spent * ladder.seeds <= 1e12 * 1.001
    assert len({rung.width for rung in ladder.rungs}) >= 2


def test_of_learning_rates_the_best_counts_and_all_are_paid_for():
    once = planned_ladder(BASE, 1e12, made.TRUE, widths=(16, 32, 64))
    ladder = planned_ladder(BASE, 2e12, made.TRUE, widths=(16, 32, 64), rates=(0.5, 1.0))
    assert len(ladder.rungs) == 2 * len(once.rungs)
    rates = {run.train.optimizer.learning_rate for run, _ in ladder.arms_resolved().values()}
    assert rates == {BASE.train.optimizer.learning_rate, BASE.train.optimizer.learning_rate / 2}
    frame = pd.DataFrame({"params": [1, 1, 2, 2], "tokens": 1, RATE: [1, 2, 1, 2], "loss": [3.0, 2.0, 1.0, 1.5]})
    assert best_rates(frame)["loss"].tolist() == [2.0, 1.0]


def test_hours_of_a_device_are_flops():
    assert flops_of(2, "H100", 0.5) == pytest.approx(flops_of(1, "H100", 1.0))
    with pytest.raises(ConfigError, match="no peak is known"):
        flops_of(1, "abacus")


def test_the_report_foretells_the_largest_budget_and_finds_the_floor():
    frame = made.runs(noise=0.002, sizes=9).frame.rename(columns={"loss": "heldout_loss"})
    runs = frame.assign(arm=[f"a{i}" for i in range(len(frame))], seed=0, status="done")
    lost = pd.DataFrame({"arm": ["lost"], "seed": [0], "status": ["failed"], "heldout_loss": [np.nan]})
    made_report = ladder_report(
        title="ladder", question="?", runs=pd.concat([runs, lost], ignore_index=True), floor=made.TRUE["E"]
    )
    text = " ".join(made_report.text().split())
    assert "the truth lies inside its 95% interval" in text
    foretold = next(t for t in made_report.tables if t.name == "foretold").frame
    assert len(foretold) == 9 and foretold["error"].abs().max() < 0.02
    assert "Left out: lost" in text
    assert {"isoflop", "contour", "frontier", "residuals", "clouds"} <= {p.name for p in made_report.plots}
