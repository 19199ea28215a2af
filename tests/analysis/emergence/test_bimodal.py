"""Two groups of seeds are found, one is left as one, and the critical bandwidth is what theory gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lm.analysis.emergence.bimodal import critical_bandwidth, mode_counts, modes
from lm.analysis.tables import TableError


def halves(n: int, seed: int = 0) -> np.ndarray:
    """Half near 0, half near 1."""
    return np.where(np.arange(n) < n // 2, 0.03, 0.97) + np.random.default_rng(seed).normal(0, 0.02, n)


class TestModes:
    @pytest.mark.parametrize("n", [6, 10, 16, 30])
    def test_seeds_near_0_or_1_are_two_groups(self, n: int) -> None:
        found = modes(halves(n))
        assert found.enough and found.p < 0.05 and found.count == 2
        assert 0.8 < found.gap < 1

    def test_three_groups(self) -> None:
        x = np.repeat([0.0, 1.0, 3.0], 10) + np.random.default_rng(0).normal(0, 0.03, 30)
        assert modes(x).count == 3

    @pytest.mark.parametrize("n", [6, 16])
    def test_one_group_is_hardly_ever_two(self, n: int) -> None:
        rng = np.random.default_rng(1)
        p = np.array([modes(rng.normal(0.5, 0.1, n)).p for _ in range(60)])
        assert np.mean(p < 0.05) <= 0.05  # Silverman's test is known to reject less often than its level
        assert np.median(p) > 0.2

    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_too_few_say_so(self, n: int) -> None:
        found = modes([0.0, 0.1, 0.15, 0.95, 1.0][:n])
        assert not found.enough and math.isnan(found.p) and math.isnan(found.bandwidth) and found.count == 1
        assert found.gap == pytest.approx({1: 0.0, 2: 1.0, 5: 0.8}[n])

    def test_equal_values_are_one_group(self) -> None:
        found = modes([0.4] * 8)
        assert (found.p, found.count, found.gap) == (1.0, 1, 0.0)

    def test_neither_order_nor_units_matter(self) -> None:
        x = halves(8)
        assert modes(x) == modes(x[::-1])
        assert modes(3 + 2 * x).p == pytest.approx(modes(x).p, abs=0.01)

    @pytest.mark.parametrize("values", [[], [0.1, math.nan], [[0.1, 0.2]]])
    def test_what_is_no_list_of_numbers_is_refused(self, values: list) -> None:
        with pytest.raises(TableError, match="a list of numbers"):
            modes(values)


class TestCriticalBandwidth:
    @pytest.mark.parametrize("apart", [0.1, 1.0, 7.0])
    def test_of_two_equal_points_is_half_their_distance(self, apart: float) -> None:
        """The sum of two normal densities has two maxima exactly where they are more than two deviations apart."""
        assert critical_bandwidth(np.array([0.0, apart])) == pytest.approx(apart / 2, rel=0.02)

    def test_below_it_are_more_modes(self) -> None:
        x = np.random.default_rng(2).normal(size=20)
        for count in (1, 2, 3):
            h = critical_bandwidth(np.sort(x), count)
            assert mode_counts(x[None], 1.01 * h)[0] <= count < mode_counts(x[None], 0.97 * h)[0]

    def test_modes_of_samples_are_counted_one_by_one(self) -> None:
        samples = np.array([[0.0, 0.1, 0.2, 0.3], [0.0, 0.1, 5.0, 5.1], [0.0, 3.0, 6.0, 9.0]])
        assert mode_counts(samples, 0.3).tolist() == [1, 2, 4]
