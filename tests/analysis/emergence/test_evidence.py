"""Shapes are told apart: the family that made a curve is chosen, and smooth curves are hardly ever called broken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma

from lm.analysis.emergence.evidence import FINELY, bic, breaks, compare_shapes, gain, transitions, width
from lm.analysis.emergence.shapes import RISE, Axis, Flat, Line, Logistic, Piecewise, Quadratic, fit_shape
from lm.analysis.emergence.verdict import STRONG
from lm.analysis.tables import TableError


def places(n: int, decades: float = 5) -> tuple[np.ndarray, np.ndarray]:
    """x, and how far along it is from 0 to 1."""
    z = np.linspace(0, 1, n)
    return 1e18 * 10 ** (decades * z), z


def sigmoid(z: np.ndarray, middle: float, width: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(z - middle) * RISE / width))


CURVES = {
    "line": lambda z: 0.1 + 0.6 * z,
    "power law": lambda z: 1 - np.exp(-4 * z),
    "steep power law": lambda z: np.exp(-10 * z),
    "quadratic": lambda z: 0.2 * z + 0.8 * z**2,
    "wide logistic": lambda z: sigmoid(z, 0.5, 0.9),
    "logistic": lambda z: sigmoid(z, 0.6, 0.15),
    "falling logistic": lambda z: -20 * sigmoid(z, 0.4, 0.1),
    "piecewise": lambda z: 2 * np.maximum(z - 0.5, 0),
}


class TestFamilies:
    @pytest.mark.parametrize("name", CURVES)
    def test_the_family_that_made_it_is_chosen(self, name: str) -> None:
        rng, (x, z) = np.random.default_rng(0), places(24)
        y = CURVES[name](z)
        found = [compare_shapes(x, y + rng.normal(0, 0.03 * np.ptp(y), 24)) for _ in range(8)]
        is_broken = [one.margin > 0 for one in found]
        if name in ("line", "power law", "steep power law", "quadratic", "wide logistic"):
            assert np.mean(is_broken) < 0.2
        else:
            assert np.mean([one.margin > STRONG for one in found]) == 1
        best = [one.broken if b else one.smooth for one, b in zip(found, is_broken, strict=True)]
        family = name.split()[-1] if "logistic" in name else name.removeprefix("steep ")
        if name != "wide logistic":  # of which a quadratic or a line may be as good a description
            assert np.mean([one is not None and one.shape.name == family for one in best]) > 0.5

    @pytest.mark.parametrize("n", [6, 8, 16, 40])
    def test_smooth_curves_are_hardly_ever_broken(self, n: int) -> None:
        rng, (x, z) = np.random.default_rng(1), places(n)
        alarms: list[float] = []
        for name in ("line", "power law", "quadratic", "steep power law"):
            for noise in (0.02, 0.1):
                alarms += [compare_shapes(x, CURVES[name](z) + rng.normal(0, noise, n)).margin for _ in range(3)]
        changes = [compare_shapes(x, rng.normal(0, 0.1, n)).change for _ in range(10)]
        assert np.mean(np.array(alarms) > STRONG) <= 0.05
        assert np.mean(np.array(changes) > STRONG) <= 0.1

    def test_the_table_has_a_row_a_shape(self) -> None:
        x, z = places(12)
        found = compare_shapes(x, CURVES["logistic"](z) + np.random.default_rng(2).normal(0, 0.02, 12))
        table = found.table.set_index("shape")
        assert table.index.tolist() == ["flat", "line", "quadratic", "power law", "logistic", "piecewise", "bnsl"]
        assert table.loc["logistic", "bic"] == table["bic"].min() and bool(table.loc["logistic", "breaks"])
        assert not table.loc[["flat", "line", "quadratic", "power law"], "breaks"].any()
        assert table.loc["logistic", "span"] == pytest.approx(0.15, abs=0.05)
        assert table.loc["logistic", "deviation"] == pytest.approx(0.02, rel=0.5)

    def test_shapes_with_more_parameters_than_points_are_left_out(self) -> None:
        x, z = places(6)
        found = compare_shapes(x, CURVES["logistic"](z))
        assert "bnsl" not in found.fits and found.table["bic"].isna().tolist() == [False] * 6 + [True]
        with pytest.raises(TableError, match="5 different x are too few"):
            compare_shapes([1, 2, 3, 4, 5, 5], [1, 2, 3, 4, 5, 6])

    def test_progress_to_smaller_x_is_the_same_curve(self) -> None:
        x, z = places(20)
        y = CURVES["power law"](z) + np.random.default_rng(3).normal(0, 0.02, 20)
        ahead, back = compare_shapes(x, y), compare_shapes(1 / x, y, Axis("log", True))
        assert ahead.table["rss"].to_numpy() == pytest.approx(back.table["rss"].to_numpy(), rel=1e-3)


class TestCriterion:
    X, Z = places(40)
    Y = CURVES["quadratic"](Z) + np.random.default_rng(4).normal(0, 0.05, 40)

    def test_bic_is_a_likelihood_with_a_penalty(self) -> None:
        fitted = fit_shape(Quadratic(), self.X, self.Y)
        left = self.Y - np.polyval(np.polyfit(self.Z, self.Y, 2), self.Z)
        deviation = math.sqrt(np.mean(left**2))
        likelihood = float(np.sum(stats.norm.logpdf(left, scale=deviation)))
        constant = 40 * (math.log(2 * math.pi) + 1)
        assert bic(fitted, self.Y) == pytest.approx(-2 * likelihood + 4 * math.log(40) - constant)

    def test_gain_is_the_difference_of_bic_for_many_points(self) -> None:
        many = np.tile(self.X, 200), np.tile(self.Y, 200)
        line, quadratic = fit_shape(Line(), *many), fit_shape(Quadratic(), *many)
        expected = bic(line, many[1]) - bic(quadratic, many[1])
        assert gain(quadratic, line, many[1]) == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize("n", [6, 40])
    def test_chance_gains_as_little_for_few_points(self, n: int) -> None:
        """A quadratic over a line where there is none: the ratio of their sums of squares has a Beta distribution, and
        what it gains before the penalty, twice the logarithm of the likelihood, a mean of nearly 1."""
        rng, (x, _) = np.random.default_rng(5), places(n)
        pairs = [(fit_shape(Line(), x, y), fit_shape(Quadratic(), x, y), y) for y in rng.normal(size=(2000, n))]
        gained = np.array([gain(rich, plain, y) + math.log(n) for plain, rich, y in pairs])
        left = n - 3
        expected = left * (digamma((left + 1) / 2) - digamma(left / 2))
        assert gained.mean() == pytest.approx(expected, abs=4 * gained.std() / math.sqrt(2000))
        assert expected == pytest.approx(1, abs=0.16)  # n times the logarithm would have 2.3 at 6 points

    def test_rounding_is_no_evidence(self) -> None:
        x, z = places(30)
        y = 0.2 + 0.5 * z
        exact = [fit_shape(shape, x, y) for shape in (Line(), Quadratic())]
        assert gain(exact[1], exact[0], y) == pytest.approx(-math.log(30))


class TestBreaks:
    @pytest.mark.parametrize(("across", "broken"), [(0.1, True), (0.4, True), (0.6, False), (1.5, False)])
    def test_a_logistic_by_its_width(self, across: float, broken: bool) -> None:
        x, z = places(40)
        fitted = fit_shape(Logistic(), x, sigmoid(z, 0.5, across))
        assert breaks(fitted) == broken
        assert width(fitted) == pytest.approx(min(across, 0.8), abs=0.15)

    @pytest.mark.parametrize(
        ("before", "after", "broken"),
        [(0.0, 1.0, True), (1.0, 4.0, True), (1.0, 2.0, False), (1.0, -1.0, True), (2.0, 0.1, True), (1.0, 1.0, False)],
    )
    def test_a_piecewise_line_by_its_slopes(self, before: float, after: float, broken: bool) -> None:
        x, z = places(20)
        noise = np.random.default_rng(6).normal(0, 0.01, 20)
        y = before * z + (after - before) * np.maximum(z - 0.5, 0) + noise
        assert breaks(fit_shape(Piecewise(), x, y)) == broken

    def test_a_slope_within_noise_is_none(self) -> None:
        x, _ = places(20)
        y = np.random.default_rng(7).normal(0, 1, 20)
        assert not breaks(fit_shape(Piecewise(), x, y))

    def test_smooth_shapes_never_break(self) -> None:
        x, z = places(20)
        assert not any(breaks(fit_shape(shape, x, sigmoid(z, 0.5, 0.1))) for shape in (Flat(), Line(), Quadratic()))


class TestTransitions:
    def test_of_a_logistic_are_its_points_of_10_50_and_90(self) -> None:
        curves = np.array([sigmoid(FINELY, 0.4, 0.2), 3 - 7 * sigmoid(FINELY, 0.6, 0.1)])
        assert transitions(curves) == pytest.approx(np.array([[0.3, 0.4, 0.5], [0.55, 0.6, 0.65]]), abs=2e-3)

    def test_of_a_line_are_most_of_it(self) -> None:
        ((start, middle, end),) = transitions(FINELY[None])
        assert end - start == pytest.approx(0.8, abs=1e-9) and middle == pytest.approx((start + end) / 2)

    def test_between_levels_they_are_where_it_changes(self) -> None:
        ramp = np.clip((FINELY - 0.6) / 0.1, 0, 1)
        found = transitions(np.array([ramp, np.where(FINELY > 0.5, 1.0, 0.0), 0 * FINELY]))
        assert found[0, 2] - found[0, 0] == pytest.approx(0.08, abs=1e-6)
        assert found[0, 0] >= 0.6 and found[0, 2] <= 0.7
        assert found[1] == pytest.approx([0.5] * 3, abs=2e-3)  # a step
        assert found[2, 2] - found[2, 0] == pytest.approx(0.8)  # nothing changes anywhere
