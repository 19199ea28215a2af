"""The optimum of a learning rate over width: known optima are found, and bounds are said to be bounds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lm.analysis import TableError
from lm.analysis.transfer import optimum, settings, shift, step_of, transfer_report

RULE, WIDTH, RATE = "train.parametrization", "model.width", "train.optimizer.learning_rate"
RATES = [2.0**-k for k in range(10, 3, -1)]
WIDTHS = [32, 64, 128]


def loss(rate: float, best: float, lowest: float, curvature: float = 0.05) -> float:
    return lowest + curvature * math.log2(rate / best) ** 2


def runs(seeds: int = 2, noise: float = 0.0, slope: float = -1.0, at: float = 2.0**-6.3) -> pd.DataFrame:
    """Losses with the optimum at `at` for MuP, and at `at` (width / 32)^slope for the standard one."""
    rng = np.random.default_rng(0)
    rows = []
    for rule in ("Standard", "MuP(base_width=32)"):
        for width in WIDTHS:
            best = at * ((width / 32) ** slope if rule == "Standard" else 1.0)
            for rate in RATES:
                for seed in range(seeds):
                    found = loss(rate, best, 3 - 0.1 * math.log2(width)) + noise * rng.normal()
                    row = {"id": f"{len(rows):04x}", "arm": f"{rule} {width} {rate:g}", "seed": seed, "status": "done"}
                    rows.append({**row, RULE: rule, WIDTH: width, RATE: rate, "heldout_loss": found, "tokens": 1000})
    return pd.DataFrame(rows)


def found(table: pd.DataFrame, rule: str):
    good = [row for row in table.to_dict("records") if math.isfinite(row["heldout_loss"])]
    return [one for one in settings(good, RULE, WIDTH, RATE, "heldout_loss") if one.rule == rule]


class TestOptimum:
    @pytest.mark.parametrize("best", [2.0**-8.4, 2.0**-7, 2.0**-5.6])
    def test_a_parabolas_is_found_exactly(self, best: float) -> None:
        got = optimum({rate: loss(rate, best, 1.7) for rate in RATES})
        assert got.rate == pytest.approx(best) and got.loss == pytest.approx(1.7) and got.bound == ""

    def test_the_steep_side_does_not_pull_it(self) -> None:
        losses = {rate: loss(rate, 2.0**-6, 1.7) for rate in RATES}
        assert optimum({**losses, RATES[-1]: 50.0}).rate == pytest.approx(2.0**-6)

    def test_at_the_end_of_the_grid_it_is_a_bound(self) -> None:
        assert optimum({r: loss(r, 2.0**-12, 1.0) for r in RATES}).bound == "<="
        assert optimum({r: loss(r, 1.0, 1.0) for r in RATES}).bound == ">="
        # what diverged is no neighbour
        losses = {r: loss(r, 2.0**-6, 1.0) if r <= 2.0**-6 else math.nan for r in RATES}
        assert optimum(losses).rate == 2.0**-6 and optimum(losses).bound == ">="

    def test_equal_losses_and_none(self) -> None:
        assert optimum(dict.fromkeys(RATES, 1.0)).loss == 1.0
        with pytest.raises(TableError, match="no loss is finite"):
            optimum(dict.fromkeys(RATES, math.nan))


class TestShift:
    @pytest.mark.parametrize("slope", [-1.0, -0.5, 0.25])
    def test_a_known_one(self, slope: float) -> None:
        table = runs(slope=slope)
        got = shift(found(table, "Standard"), 2.0)
        assert got.steps == pytest.approx(slope * math.log2(128 / 32)) and got.bound == ""
        assert shift(found(table, "MuP(base_width=32)"), 2.0).steps == pytest.approx(0, abs=1e-9)

    def test_its_interval_holds_the_truth_and_grows_with_the_noise(self) -> None:
        one, two = (shift(found(runs(seeds=6, noise=noise), "Standard"), 2.0) for noise in (0.002, 0.01))
        for got in (one, two):
            assert got.low < -2.0 < got.high
        assert two.high - two.low > 2 * (one.high - one.low)

    def test_beyond_the_grid_it_is_a_bound(self) -> None:
        table = runs(slope=-3.0)  # the widest model's best rate is below the grid
        assert shift(found(table, "Standard"), 2.0).bound == "<="
        assert shift(found(runs(slope=-3.0, at=0.5), "Standard"), 2.0).bound == "<="  # the narrowest's is above
        assert shift(found(runs(slope=-5.0, at=2.0**-6.3), "MuP(base_width=32)"), 2.0).bound == ""

    def test_the_unit_is_the_grids_factor(self) -> None:
        assert step_of(RATES) == pytest.approx(2.0) and step_of([1e-3, 1e-1, 1e-2, 1e-2]) == pytest.approx(10.0)
        with pytest.raises(TableError, match="no grid"):
            step_of([1e-3, 2e-3, 1e-2])


class TestReport:
    def test_it_says_how_far_each_optimum_moves(self) -> None:
        text = transfer_report(
            title="t", question="q", runs=runs(), rule=RULE, width=WIDTH, rate=RATE
        ).text()  # fmt: skip
        assert "Standard: from width 32 to 128 the best rate moves by -2.00 steps of a factor 2" in text
        assert "+0.00 steps" in text.replace("-0.00", "+0.00")
        assert "42 of 84" not in text and "84 of 84 runs finished" in text

    def test_it_is_written_with_runs_that_failed_or_are_to_come(self, tmp_path) -> None:
        table = runs()
        table.loc[table[RATE] == RATES[-1], ["heldout_loss", "status"]] = [math.nan, "failed"]
        table.loc[(table[WIDTH] == 128) & (table["seed"] == 1), ["heldout_loss", "status"]] = [math.nan, "new"]
        report = transfer_report(title="t", question="q", runs=table, rule=RULE, width=WIDTH, rate=RATE)
        assert report.write(tmp_path).stat().st_size > 10_000
        assert "status 'failed'" in report.text()
        optima = pd.read_csv(tmp_path / "optima.csv")
        assert optima.loc[optima["width"] == 128, "n"].tolist() == [1, 1]
        assert len(optima) == 6

    @pytest.mark.parametrize("done", [0, 2, 3, 30, 50])
    def test_a_sweep_that_is_under_way_has_a_report(self, done: int) -> None:
        table = runs().sort_values("seed", kind="stable").reset_index(drop=True)
        table.loc[done:, ["heldout_loss", "status"]] = [math.nan, "new"]
        text = transfer_report(title="t", question="q", runs=table, rule=RULE, width=WIDTH, rate=RATE).text()
        assert f"{done} of 84" in text and ("No seed has" in text) == (done < 10)
        assert "nan" not in text

    def test_what_the_narrowest_rate_costs(self) -> None:
        (frame,) = (t.frame for t in transfer_report(
            title="t", question="", runs=runs(seeds=1, at=2.0**-6), rule=RULE, width=WIDTH, rate=RATE
        ).tables if t.name == "optima")  # fmt: skip
        cost = {(r["parametrisation"], r["width"]): r["cost"] for r in frame.to_dict("records")}
        assert cost["Standard", 128] == pytest.approx(0.05 * 2**2) and cost["Standard", 64] == pytest.approx(0.05)
        assert cost["MuP(base_width=32)", 128] == pytest.approx(0.0)

    def test_a_missing_column_is_named(self) -> None:
        with pytest.raises(TableError, match=r"model\.width"):
            transfer_report(title="", question="", runs=runs().drop(columns=WIDTH), rule=RULE, width=WIDTH, rate=RATE)
