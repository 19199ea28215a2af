"""Approaches 1 and 2: parabolas of equal FLOPs, and the envelope of curves."""

import numpy as np
import pandas as pd
import pytest

from lm.analysis import scaling
from lm.analysis.tables import TableError
from tests.analysis.scaling import made

A = made.TRUE["beta"] / (made.TRUE["alpha"] + made.TRUE["beta"])


def test_the_exponent_of_a_known_law():
    found = scaling.isoflop(made.runs())
    assert found.exponent == pytest.approx(A, abs=0.01)
    assert len(found.optima) == 5 and found.optima["used"].all()
    for row in found.optima.to_dict("records"):
        assert row["N_opt"] == pytest.approx(made.optimum(row["C"]), rel=0.1)
        assert 6 * row["N_opt"] * row["D_opt"] == pytest.approx(row["C"])
    noisy = scaling.isoflop(made.runs(noise=0.003, sizes=12))
    low, high = noisy.interval()
    assert low < A < high and high - low < 0.2


def test_budgets_that_arent_quite_equal_are_brought_together():
    rng = np.random.default_rng(0)
    frame = made.runs(sizes=15).frame
    tokens = frame["tokens"] * np.exp(rng.uniform(-0.06, 0.06, len(frame)))
    frame = frame.assign(tokens=tokens, flops=6 * frame["params"] * tokens, loss=made.law(frame["params"], tokens))
    found = scaling.isoflop(scaling.table(frame))
    assert len(found.optima) == 5
    assert found.exponent == pytest.approx(A, abs=0.015)


def test_a_minimum_at_the_edge_is_warned_of_and_beyond_it_not_used():
    frame = made.runs(sizes=13).frame
    budgets = np.sort(frame["flops"].unique())
    best = made.optimum(budgets)
    keep = np.ones(len(frame), bool)
    keep &= ~((frame["flops"] == budgets[0]) & (frame["params"] > best[0] * 0.6)).to_numpy()
    keep &= ~((frame["flops"] == budgets[1]) & (frame["params"] > best[1] * 1.2)).to_numpy()
    found = scaling.isoflop(scaling.table(frame.loc[keep]))
    first, second, *rest = found.optima.to_dict("records")
    assert "beyond the grid: train larger" in first["warnings"] and not first["used"]
    assert "off-centre" in second["warnings"] and second["used"]
    assert not any(row["warnings"] for row in rest)


def test_one_budget_is_no_law():
    with pytest.raises(TableError, match="only 1 of 1 budgets"):
        scaling.isoflop(made.runs(budgets=(1e19,)))


def test_the_published_parabolas(reference):
    """Hoffmann et al. 2022, table 2: a = 0.49 [0.462, 0.534] by approach 2, on runs read off their figure."""
    path = reference("besiroglu") / "svg_extracted_data.csv"
    runs = scaling.read_csv(path, params="Model Size", flops="Training FLOP", loss="loss").without_highest_losses(5)
    found = scaling.isoflop(runs)
    low, high = found.interval()
    assert 0.462 < found.exponent < 0.534
    assert low < 0.49 < high


def test_leave_one_budget_out_foretells_a_known_law():
    table = scaling.leave_one_budget_out(made.runs(), starts=8)
    assert len(table) == 5 and (table["mean_relative_error"] < 1e-5).all()


def test_the_envelope_of_curves():
    """Curves of a law in which every point of a curve is as good as a run of that length: the law's own optimum."""
    sizes = np.geomspace(1e6, 1e9, 60)
    rows = []
    for i, size in enumerate(sizes):
        tokens = np.geomspace(size / 10, size * 1000, 60)
        loss = made.law(size, tokens)
        rows.append(pd.DataFrame({"params": size, "tokens": tokens, "loss": loss, "model": f"m{i}"}))
    found = scaling.envelope(scaling.table(pd.concat(rows)))
    assert found.exponent == pytest.approx(A, abs=0.02)
    with pytest.raises(TableError, match="training curves"):
        scaling.envelope(made.runs())
