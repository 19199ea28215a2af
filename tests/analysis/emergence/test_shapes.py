"""Fits find the constants that made a curve, on axes of every kind, and the least squares that others find."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import curve_fit

from lm.analysis.emergence.shapes import (
    BREAKING,
    RISE,
    SMOOTH,
    Axis,
    Broken,
    Flat,
    Line,
    Logistic,
    Piecewise,
    PowerLaw,
    Quadratic,
    Shape,
    fit_shape,
    orthonormal,
    refit,
)
from lm.analysis.scaling.laws.bnsl import BNSL
from lm.analysis.tables import TableError

X = np.geomspace(1e17, 1e22, 25)
U = np.log10(X)
SHAPES = (*SMOOTH, *BREAKING)


def logistic(u: np.ndarray, low: float, high: float, mid: float, scale: float) -> np.ndarray:
    return low + (high - low) / (1 + np.exp(-(u - mid) / scale))


class TestRecovery:
    @pytest.mark.parametrize(
        ("shape", "y", "numbers"),
        [
            (Flat(), 0.3 + 0 * U, {"a": 0.3}),
            (Line(), 2 - 0.1 * U, {"a": 2, "b": -0.1}),
            (Quadratic(), 5 - 0.6 * U + 0.02 * U**2, {"a": 5, "b": -0.6, "c": 0.02}),
            (PowerLaw(), 1.7 + 5000 * X**-0.2, {"a": 1.7, "b": 5000, "c": 0.2}),
            (PowerLaw(), -3e6 * X**-0.3, {"a": 0, "b": -3e6, "c": 0.3}),
            (
                Logistic(),
                logistic(U, 0.1, 0.8, 19.6, 0.12),
                {"low": 0.1, "high": 0.8, "rise": 0.7, "midpoint": 10**19.6, "scale": 0.12, "width": 0.12 * RISE},
            ),
            (Logistic(), logistic(U, -2, -30, 18.2, 0.4), {"low": -2, "high": -30, "midpoint": 10**18.2, "scale": 0.4}),
            (
                Piecewise(),
                0.2 + 0.01 * U + 0.3 * np.maximum(U - 20.3, 0),
                {"break_at": 10**20.3, "before": 0.01, "after": 0.31, "a": 0.2},
            ),
        ],
    )
    def test_the_constants_that_made_it(self, shape: Shape, y: np.ndarray, numbers: dict[str, float]) -> None:
        found = fit_shape(shape, X, y)
        assert {name: found.numbers[name] for name in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-4)
        assert found.rss < 1e-12 * np.ptp(y) ** 2 + 1e-25
        assert found.predict(X) == pytest.approx(y, abs=1e-6 * (np.ptp(y) or 1))
        assert found.predict(float(X[3])) == pytest.approx(y[3], abs=1e-6 * (np.ptp(y) or 1))

    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_broken_law_is_that_of_caballero(self, sign: int) -> None:
        law = BNSL(1)
        made = {"a": 1.5, "b": 300.0, "c_0": 0.12, "c_1": 0.3, "d_1": 1e19, "f_1": 0.3}
        y = sign * law.at(law.coordinates(made)[None], {"flops": X})[0]
        found = fit_shape(Broken(), X, y)
        assert found.predict(X) == pytest.approx(y, abs=1e-4 * np.ptp(y))
        ours = {**found.numbers, "d_1": 10 ** found.numbers["d_1"]}
        a, b = ours["a"], ours["b"]  # of either sign, which the law's coordinates can't be
        same = law.at(law.coordinates({**ours, "a": 1.0, "b": 1.0})[None], {"flops": X})[0] - 1
        assert a + b * same == pytest.approx(found.predict(X), abs=1e-9 * np.ptp(y))

    @pytest.mark.parametrize("decades", [1, 3, 6])
    @pytest.mark.parametrize("points", [6, 15, 100])
    @pytest.mark.parametrize("rise", [0.9, -40.0])
    def test_over_any_range_with_any_number_of_points(self, decades: int, points: int, rise: float) -> None:
        x = np.geomspace(100, 100 * 10**decades, points)
        mid, scale = 2 + 0.55 * decades, 0.05 * decades
        found = fit_shape(Logistic(), x, logistic(np.log10(x), 0.05, 0.05 + rise, mid, scale))
        assert found.numbers["mid"] == pytest.approx(mid, abs=0.002 * decades)
        assert found.numbers["scale"] == pytest.approx(scale, rel=0.03)
        assert found.numbers["rise"] == pytest.approx(rise, rel=0.01)

    def test_on_a_linear_axis(self) -> None:
        x = np.linspace(2, 5, 20)
        found = fit_shape(Logistic(), x, logistic(x, 0, 1, 3.3, 0.1), axis=Axis("linear"))
        assert found.numbers["midpoint"] == pytest.approx(3.3, abs=1e-4)
        found = fit_shape(PowerLaw(), x, 1 + 4 * np.exp(-2 * x), axis=Axis("linear"))
        assert found.numbers["c"] * math.log(10) == pytest.approx(2, rel=1e-4)

    def test_against_falling_x_it_is_the_mirror_image(self) -> None:
        y = logistic(U, 0.1, 0.8, 19.6, 0.12)
        ahead, back = fit_shape(Logistic(), X, y), fit_shape(Logistic(), X[::-1], y[::-1], axis=Axis.of(X[::-1]))
        assert back.numbers["midpoint"] == pytest.approx(ahead.numbers["midpoint"], rel=1e-4)
        assert back.numbers["rise"] == pytest.approx(-ahead.numbers["rise"], rel=1e-4)


class TestLeastSquares:
    NOISY = logistic(U, 0.1, 0.8, 19.6, 0.2) + np.random.default_rng(0).normal(0, 0.05, len(X))

    def test_is_scipys_for_the_logistic(self) -> None:
        theirs, _ = curve_fit(logistic, U, self.NOISY, p0=(0, 1, 19.5, 0.2))
        found = fit_shape(Logistic(), X, self.NOISY).numbers
        assert [found[n] for n in ("low", "high", "mid", "scale")] == pytest.approx(theirs, rel=1e-4)

    def test_is_the_best_of_all_breaks_for_the_piecewise(self) -> None:
        best = min(
            np.linalg.lstsq(np.column_stack([np.ones_like(U), U, np.maximum(U - at, 0)]), self.NOISY)[1][0]
            for at in np.linspace(U[2], U[-3], 4001)
        )
        assert fit_shape(Piecewise(), X, self.NOISY).rss == pytest.approx(best, rel=1e-4)

    @pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
    def test_nothing_near_is_better(self, shape: Shape) -> None:
        found = fit_shape(shape, X, self.NOISY)
        z, rng = found.z(X), np.random.default_rng(1)
        low, high = (np.array([r[i] for r in shape.ranges(z)]) for i in (0, 1))
        for _ in range(200):
            size = 10.0 ** rng.uniform(-4, -1)
            theta = np.clip(found.theta + size * (high - low) * rng.normal(size=len(low)), low, high)
            basis = shape.basis(theta, z)
            left = self.NOISY - basis @ np.linalg.lstsq(basis, self.NOISY)[0]
            assert np.sum(left**2) > found.rss * (1 - 1e-6)

    @pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
    def test_weights_are_points_that_are_there_more_than_once(self, shape: Shape) -> None:
        weights = np.random.default_rng(2).integers(1, 4, len(X))
        weighted = fit_shape(shape, X, self.NOISY, weights)
        repeated = fit_shape(shape, np.repeat(X, weights), np.repeat(self.NOISY, weights))
        assert weighted.rss == pytest.approx(repeated.rss, rel=1e-3)
        assert weighted.predict(X) == pytest.approx(repeated.predict(X), abs=0.01)
        assert weighted.rss != pytest.approx(fit_shape(shape, X, self.NOISY).rss, rel=0.05)

    @pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
    def test_many_at_once_are_each_by_itself(self, shape: Shape) -> None:
        rng = np.random.default_rng(3)
        ys = logistic(U, 0.1, 0.8, rng.uniform(18.5, 20.5, (4, 1)), 0.2) + rng.normal(0, 0.03, (4, len(U)))
        theta, b = refit(fit_shape(shape, X, self.NOISY), X, ys)
        z = (U - U[0]) / np.ptp(U)
        for y, t, one in zip(ys, theta, b, strict=True):
            rss = np.sum((y - shape.basis(t, z) @ one) ** 2)
            assert rss == pytest.approx(fit_shape(shape, X, y).rss, rel=1e-4)


def test_orthonormal_columns_leave_out_what_depends_on_others() -> None:
    z = np.linspace(0, 1, 9)
    basis = np.stack([np.ones(9), z, 2 - 3 * z, z**2], axis=-1)
    made = orthonormal(basis)
    assert made.T @ made == pytest.approx(np.diag([1, 1, 0, 1]), abs=1e-12)
    assert made @ made.T @ basis == pytest.approx(basis)


class TestAxis:
    def test_there_and_back(self) -> None:
        for axis in (Axis(), Axis("linear"), Axis("log", True), Axis("linear", True)):
            assert axis.x(axis.u(X)) == pytest.approx(X)
            assert np.all(np.diff(axis.u(X)) < 0) == axis.falling

    @pytest.mark.parametrize(
        ("x", "kind", "words"),
        [([1, 3, 2], "log", "neither rises nor falls"), ([1, 2, 3], "cubic", "must be 'log' or 'linear'")],
    )
    def test_what_is_no_axis_is_refused(self, x: list[float], kind: Any, words: str) -> None:
        with pytest.raises(TableError, match=words):
            Axis.of(x, kind)

    def test_what_has_no_place_is_refused(self) -> None:
        with pytest.raises(TableError, match="no place for every x"):
            fit_shape(Line(), [0, 1, 2], [1, 2, 3])

    def test_too_few_points_are_refused(self) -> None:
        with pytest.raises(TableError, match="5 different x are too few"):
            fit_shape(Logistic(), [1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
        with pytest.raises(TableError, match="3 points are too few for the 3 parameters"):
            fit_shape(Quadratic(), [1, 2, 3], [1, 2, 4])
        with pytest.raises(TableError, match="a number y, and a positive weight"):
            fit_shape(Line(), [1, 2, 3], [1, 2, math.nan])
