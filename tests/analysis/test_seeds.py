"""Seed noise: intervals cover what they should, variance components are found again, and power is what tests have."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lm.analysis import TableError
from lm.analysis.noise import crossed, needed_table, seeds_report
from lm.analysis.seeds import components, correlation, deviation, pooled, power, seeds_for


def crossed_table(rng: np.random.Generator, rows: int, columns: int, sds: tuple[float, float, float]) -> np.ndarray:
    a, b = rng.normal(0, sds[0], (rows, 1)), rng.normal(0, sds[1], (1, columns))
    return 3 + a + b + rng.normal(0, sds[2], (rows, columns))


class TestSpread:
    def test_the_deviations_interval_covers(self) -> None:
        rng = np.random.default_rng(0)
        held = [low < 0.3 < high for _, low, high in (deviation(rng.normal(2, 0.3, 8)) for _ in range(2000))]
        assert np.mean(held) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))

    @pytest.mark.parametrize("shared", [0.0, 0.9])
    def test_the_pooled_interval_covers_whatever_the_arms_share(self, shared: float) -> None:
        rng, held = np.random.default_rng(7), []
        for _ in range(1500):
            noise = rng.normal(size=(3, 8))
            own = math.sqrt(1 - shared)
            _, low, high = pooled(*(math.sqrt(shared) * noise[0] + own * noise[1:]))
            held.append(low < 1 < high)
        assert np.mean(held) == pytest.approx(0.95, abs=0.03)
        assert pooled([1, 2, 3], [4, 5, 6]) == deviation([1, 2, 3])  # one arm twice is one arm

    def test_a_single_value_has_none(self) -> None:
        assert all(map(math.isnan, deviation([1.0])))

    def test_correlation_is_scipys_and_its_interval_covers(self) -> None:
        rng = np.random.default_rng(1)
        held = []
        for _ in range(1000):
            x = rng.normal(size=16)
            y = 0.6 * x + 0.8 * rng.normal(size=16)
            r, low, high = correlation(x, y)
            held.append(low < 0.6 < high)
        assert r == pytest.approx(stats.pearsonr(x, y)[0])
        assert np.mean(held) == pytest.approx(0.95, abs=0.03)

    def test_too_few_pairs_have_no_interval(self) -> None:
        r, low, _ = correlation([1, 2, 3], [1, 2, 4])
        assert r > 0.9 and math.isnan(low)
        assert math.isnan(correlation([1, 1], [1, 2])[0])


class TestComponents:
    def test_large_tables_give_them_back(self) -> None:
        table = crossed_table(np.random.default_rng(2), 150, 150, (0.3, 0.1, 0.2))
        found = components(table)
        assert [s.sd for s in found] == pytest.approx([0.3, 0.1, 0.2], rel=0.15)
        assert sum(s.share for s in found) == pytest.approx(1.0)
        assert all(s.low < s.share < s.high for s in found)

    @pytest.mark.parametrize("sds", [(0.3, 0.3, 0.3), (0.1, 0.4, 0.2)])
    def test_small_tables_intervals_cover_the_shares(self, sds: tuple[float, float, float]) -> None:
        rng = np.random.default_rng(3)
        true = np.square(sds) / np.square(sds).sum()
        found = [components(crossed_table(rng, 6, 6, sds)) for _ in range(150)]
        for i in range(3):
            held = np.mean([one[i].low <= true[i] <= one[i].high for one in found])
            assert held > 0.89, i  # 95% less four standard errors and a little, for the interval isn't exact

    def test_swapping_rows_and_columns_swaps_them(self) -> None:
        table = crossed_table(np.random.default_rng(4), 5, 7, (0.3, 0.1, 0.2))
        (a, b, e), (c, d, f) = components(table), components(table.T)
        assert (a.share, b.share, e.share) == pytest.approx((d.share, c.share, f.share))

    def test_a_hole_is_refused(self) -> None:
        with pytest.raises(TableError, match="full table"):
            components(np.array([[1.0, np.nan], [2.0, 3.0]]))


class TestPower:
    @pytest.mark.parametrize(("effect", "n"), [(0.5, 4), (1.0, 12), (2.0, 5)])
    @pytest.mark.parametrize("paired", [False, True])
    def test_simulated_tests_agree(self, effect: float, n: int, paired: bool) -> None:
        rng, many = np.random.default_rng(5), 20_000
        if paired:
            _, p = stats.ttest_1samp(rng.normal(effect, 0.7, (many, n)), 0, axis=1)
            expected = power(effect, 0.7, n, paired=True)
        else:
            _, p = stats.ttest_ind(rng.normal(0, 0.7, (many, n)), rng.normal(effect, 0.7, (many, n)), axis=1)
            expected = power(effect, 0.7, n)
        error = math.sqrt(expected * (1 - expected) / many)
        assert np.mean(np.asarray(p) < 0.05) == pytest.approx(expected, abs=4 * error)

    def test_without_an_effect_it_is_the_level(self) -> None:
        assert power(0.0, 1.0, 7, alpha=0.1) == pytest.approx(0.1)

    def test_extremes_have_numbers(self) -> None:
        values = [power(effect, 1.0, n) for effect in (0.01, 1, 10, 1000) for n in (1, 2, 20, 200, 20_000)]
        assert np.isfinite(values).all() and min(values) >= 0 and max(values) <= 1 + 1e-12

    @pytest.mark.parametrize("paired", [False, True])
    def test_the_least_number_of_seeds(self, paired: bool) -> None:
        for effect in (0.2, 0.5, 1.0, 4.0):
            n = int(seeds_for(effect, 1.0, paired))
            assert power(effect, 1.0, n, paired) >= 0.8
            assert n == 2 or power(effect, 1.0, n - 1, paired) < 0.8

    def test_no_number_is_enough_for_nothing(self) -> None:
        assert math.isinf(seeds_for(0.0, 1.0)) and math.isinf(seeds_for(1e-6, 1.0))
        with pytest.raises(TableError, match="standard deviation"):
            power(1.0, 0.0, 3)


# ---- the report -----------------------------------------------------------------------------------------------


def runs(seeds: int = 12, crosses: int = 4, shared: float = 0.9) -> pd.DataFrame:
    """An initialisation effect of 0.02, a data order's of 0.01, and the variant with much of the same noise."""
    rng = np.random.default_rng(6)
    init, order, own = rng.normal(0, 0.02, seeds), rng.normal(0, 0.01, seeds), rng.normal(0, 0.005, (seeds, seeds))
    rows = []

    def add(arm: str, i: int, j: int, loss: float) -> None:
        row = {"id": f"{len(rows):04x}", "arm": arm, "seed": i, "data.seed": 10 + j, "status": "done", "tokens": 9}
        rows.append({**row, "heldout_loss": loss})

    for s in range(seeds):
        noise = init[s] + order[s] + own[s, s]
        add("base", s, s, 2 + noise)
        add("variant", s, s, 2.1 + shared * noise + 0.005 * rng.normal())
    for j in range(crosses):
        for i in range(crosses):
            if i != j:
                add(f"base, order {j}", i, j, 2 + init[i] + order[j] + own[i, j])
    return pd.DataFrame(rows)


def report(table: pd.DataFrame):
    return seeds_report(title="t", question="q", runs=table, base="base", variant="variant", order="data.seed")


class TestReport:
    def test_the_crossed_table_is_the_runs(self) -> None:
        rows = [row for row in runs().to_dict("records") if row["arm"] != "variant"]
        table = crossed(rows, "base", "data.seed", "heldout_loss")
        assert table is not None and table.shape == (4, 4)
        cell = next(r for r in rows if (r["seed"], r["data.seed"]) == (1, 12))
        assert table[1, 2] == cell["heldout_loss"]
        assert crossed(rows[:-1], "base", "data.seed", "heldout_loss") is None  # one run isn't there

    def test_says_what_is_known(self, tmp_path) -> None:
        table = runs()
        made = report(table)
        text = made.text()
        sd = table.loc[table["arm"] == "base", "heldout_loss"].std()
        assert f"standard deviation of {sd:.4f} nats" in text
        assert "initialisation" in text and "in pairs" in text and "36 of 36 runs finished" in text
        assert made.write(tmp_path).stat().st_size > 10_000

    def test_pairs_need_fewer_seeds_where_noise_is_shared(self) -> None:
        spread, inside = (0.02, 0.015, 0.03), (0.005, 0.004, 0.008)
        needed = needed_table(spread, inside)
        paired, unpaired = needed["paired"].to_numpy(), needed["unpaired"].to_numpy()
        assert np.all(paired <= unpaired) and np.any(paired < unpaired)
        assert np.all(needed["unpaired_low"].to_numpy() <= needed["unpaired_high"].to_numpy())
        assert np.all(np.diff(unpaired) <= 0)

    def test_runs_that_are_missing_are_said(self) -> None:
        table = runs()
        table.loc[table["arm"] == "base, order 2", "status"] = "new"
        text = report(table).text()
        assert "Left out" in text and "33 of 36" in text

    def test_two_runs_at_least(self) -> None:
        with pytest.raises(TableError, match="at least 2"):
            report(runs(seeds=4).query("arm != 'base' or seed == 0"))
