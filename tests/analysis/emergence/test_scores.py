"""Intervals of shares, the least accuracy that can be told, and BIG-bench's numbers for a curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lm.analysis.emergence.scores import breakthrough, detectable, linearity, wilson
from lm.analysis.tables import TableError


class TestWilson:
    @pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
    def test_is_scipys(self, level: float) -> None:
        for n in (1, 7, 100):
            for k in range(n + 1):
                theirs = stats.binomtest(k, n).proportion_ci(level, method="wilson")
                assert wilson(k, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-12)

    def test_its_ends_are_where_the_score_test_is_at_the_level(self) -> None:
        for end in wilson(13, 50):
            z = abs(13 / 50 - end) / math.sqrt(end * (1 - end) / 50)
            assert 2 * stats.norm.sf(z) == pytest.approx(0.05)

    def test_arrays(self) -> None:
        low, high = wilson(np.array([0, 3, 9]), np.array([10, 10, 9]))
        assert [wilson(0, 10), wilson(3, 10), wilson(9, 9)] == list(zip(low, high, strict=True))
        assert low[0] == 0 and high[2] == 1

    @pytest.mark.parametrize(("k", "n", "level"), [(5, 4, 0.95), (-1, 4, 0.95), (0, 0, 0.95), (1, 4, 1.0)])
    def test_impossible_counts_are_refused(self, k: int, n: int, level: float) -> None:
        with pytest.raises(TableError, match="must lie between" if level == 1 else "aren't counts"):
            wilson(k, n, level)


class TestDetectable:
    @pytest.mark.parametrize(("n", "chance"), [(40, 0.25), (100, 0.5), (1000, 0.1), (30, 0.01)])
    def test_is_the_first_share_above_chance(self, n: int, chance: float) -> None:
        least = detectable(n, chance)
        k = round(least * n)
        assert k / n == least
        assert wilson(k, n)[0] > chance >= wilson(k - 1, n)[0]

    def test_from_no_chance_it_is_what_none_of_n_leaves_possible(self) -> None:
        z2 = stats.norm.ppf(0.975) ** 2
        assert detectable(100) == pytest.approx(z2 / (100 + z2))
        assert detectable(1000) < detectable(100) < detectable(10)

    def test_so_few_examples_can_not_tell(self) -> None:
        assert math.isinf(detectable(1, 0.5)) and math.isfinite(detectable(10, 0.5))

    @pytest.mark.parametrize(("n", "chance"), [(0, 0.0), (10, 1.0), (10, -0.1)])
    def test_impossible_questions_are_refused(self, n: int, chance: float) -> None:
        with pytest.raises(TableError, match="examples are 1 or more"):
            detectable(n, chance)


class TestBigBench:
    def test_a_straight_line(self) -> None:
        y = 0.1 + 0.05 * np.arange(9)
        assert linearity(y) == pytest.approx(8) and breakthrough(y) == pytest.approx(8)
        assert linearity(y[::-1]) == pytest.approx(-8) and breakthrough(y[::-1]) == pytest.approx(-8)

    def test_one_large_step_is_a_breakthrough(self) -> None:
        y = [0.0, 0.01, 0.02, 0.03, 0.04, 0.9]  # steps of 0.01, and one of 0.86
        assert linearity(y) == pytest.approx(0.9 / math.sqrt((4 * 0.01**2 + 0.86**2) / 5))
        assert breakthrough(y) == pytest.approx(0.9 / 0.01)

    def test_nothing_and_a_bare_step(self) -> None:
        assert linearity([0.3] * 4) == breakthrough([0.3] * 4) == 0
        assert breakthrough([0.0, 0, 0, 1]) == math.inf and breakthrough([1.0, 0, 0, 0]) == -math.inf

    @pytest.mark.parametrize("values", [[0.5], [0.5, math.nan], [[0.1, 0.2]]])
    def test_what_is_no_curve_is_refused(self, values: list) -> None:
        with pytest.raises(TableError, match="at least two scores"):
            linearity(values)
