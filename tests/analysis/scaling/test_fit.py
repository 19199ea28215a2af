"""Fits: published optima, known answers, and what is refused."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lm.analysis import scaling
from lm.analysis.scaling.objective import Objective
from lm.analysis.tables import TableError
from tests.analysis.scaling import made


@pytest.fixture(scope="module")
def besiroglu(reference):
    path = reference("besiroglu") / "svg_extracted_data.csv"
    runs = scaling.read_csv(path, params="Model Size", flops="Training FLOP", loss="loss")
    return runs.without_highest_losses(5)


@pytest.fixture(scope="module")
def huber(besiroglu):
    return scaling.fit(besiroglu, "chinchilla", "huber", delta=1e-3, starts=300, seed=0)


def test_the_published_optimum_of_the_huber_objective(huber):
    """Besiroglu et al. 2024, as their notebook prints it; all starts come to it."""
    expected = {"A": 477.83, "B": 2143.42, "E": 1.81722, "alpha": 0.34731, "beta": 0.36717}
    assert huber.params == pytest.approx(expected, rel=1e-4)
    assert huber.objective == pytest.approx(0.001018274018, rel=1e-7)
    assert huber.agreement > 0.95


def test_the_published_optimum_of_least_absolute_deviations(besiroglu):
    found = scaling.fit(besiroglu, objective="lad", starts=64)
    expected = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
    assert found.params == pytest.approx(expected, rel=2e-4)
    assert found.params["alpha"] == pytest.approx(0.34781, rel=1e-4)
    assert found.params["beta"] == pytest.approx(0.36585, rel=1e-4)


def test_the_published_standard_errors(huber):
    boot = huber.bootstrap(1000, seed=0)
    expected = {"A": 125, "B": 1293, "E": 0.026, "alpha": 0.015, "beta": 0.021, "a": 0.020}
    for name, error in expected.items():
        assert boot.standard_error(name) == pytest.approx(error, rel=0.15), name
    low, high = boot.interval("a", 0.8)
    assert (high - low) / 2 == pytest.approx(0.0255, rel=0.15)


@pytest.mark.parametrize(("below", "error"), [(1e20, 0.0089), (1e21, 0.0105)])
def test_the_published_holdout_errors(besiroglu, below, error):
    found = scaling.holdout(besiroglu, law="chinchilla", max_flops=below)
    assert found.mean_relative_error == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize("objective", ["huber", "lad", "squared"])
@pytest.mark.parametrize("on", ["log", "value"])
def test_a_law_without_noise_is_recovered(objective, on):
    found = scaling.fit(made.runs(), objective=objective, on=on, starts=32)
    assert found.params == pytest.approx(made.TRUE, rel=1e-4)
    assert found.derived["a"] == pytest.approx(0.37 / 0.72, rel=1e-4)


def test_least_squares_agree_with_scipy():
    from scipy.optimize import least_squares

    runs = made.runs(noise=0.01)
    n, d, loss = (runs.column(c) for c in ("params", "tokens", "loss"))

    def residual(t):
        return np.log(np.exp(t[0]) + np.exp(t[1] - t[3] * np.log(n)) + np.exp(t[2] - t[4] * np.log(d))) - np.log(loss)

    start = [np.log(1.7), np.log(400), np.log(1000), 0.35, 0.37]
    other = least_squares(residual, start, xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac", max_nfev=10_000)
    found = scaling.fit(runs, objective="squared", starts=32)
    assert found.objective <= other.cost * (1 + 1e-9)
    assert found.objective == pytest.approx(other.cost, rel=1e-6)


def test_an_objective_is_the_integral_of_its_slope():
    r = np.linspace(-0.01, 0.01, 20001)
    for objective in (Objective("huber", 2e-3), Objective("squared"), Objective("lad")):
        step = np.gradient(objective.loss(r), r)
        assert np.allclose(step[1:-1], objective.slope(r)[1:-1], atol=1e-5 if objective.kind != "lad" else 1) or (
            objective.kind == "lad" and np.allclose(np.delete(step, [0, 9999, 10000, 10001, 20000]),
                                                    np.delete(objective.slope(r), [0, 9999, 10000, 10001, 20000]))
        )  # fmt: skip


def test_parameters_can_be_given():
    found = scaling.fit(made.runs(noise=0.005), fixed={"alpha": 0.35, "beta": 0.37}, starts=16)
    assert set(found.params) == {"E", "A", "B"}
    with pytest.raises(TableError, match="alpha"):
        scaling.fit(made.runs(), fixed={"alfa": 0.35})


def test_predictions_broadcast_and_name_what_is_missing():
    found = scaling.fit(made.runs(), starts=8)
    grid = found.predict(params=np.array([1e8, 1e9])[:, None], tokens=np.array([1e10, 1e11, 1e12]))
    assert grid.shape == (2, 3)
    assert grid[1, 2] == pytest.approx(found.predict(params=1e9, tokens=1e12))
    assert grid == pytest.approx(made.law(np.array([[1e8], [1e9]]), np.array([1e10, 1e11, 1e12])), rel=1e-5)
    with pytest.raises(TableError, match="tokens isn't given"):
        found.predict(params=1e9)
    with pytest.raises(TableError, match="params"):
        found.predict(param=1e9, tokens=1e10)


class TestRefusals:
    def test_too_few_runs(self):
        few = made.runs().where(np.arange(35) < 5, "most")
        with pytest.raises(TableError, match="5 runs can't determine the 5 parameters"):
            scaling.fit(few)

    def test_losses_of_different_texts(self):
        runs = made.runs()
        frame = runs.frame.assign(evaluation=["c4", "wiki"] * 17 + ["c4"])
        mixed = dataclasses.replace(runs, frame=frame)
        with pytest.raises(TableError, match="2 evaluation sets"):
            scaling.fit(mixed)
        assert len(scaling.fit(mixed.select(evaluation="c4"), starts=8).runs) == 18

    def test_formulas_mixed(self):
        runs = made.runs()
        with pytest.raises(TableError, match="different formulas"):
            scaling.fit(dataclasses.replace(runs, frame=runs.frame.assign(formula=["6ND", "exact"] * 17 + ["6ND"])))

    def test_one_budget_and_one_ratio_are_said(self):
        one = scaling.fit(made.runs(budgets=(1e19,), sizes=20, noise=1e-3), starts=16)
        assert any("one compute budget" in note for note in one.notes)
        sizes = np.geomspace(1e7, 1e9, 20)
        frame = pd.DataFrame({"params": sizes, "tokens": 20 * sizes, "loss": made.law(sizes, 20 * sizes)})
        assert any("one ratio" in note for note in scaling.fit(scaling.table(frame), starts=16).notes)

    def test_what_isnt_a_law_or_an_objective(self):
        with pytest.raises(TableError, match="did you mean 'chinchilla'"):
            scaling.fit(made.runs(), "chinchila")
        with pytest.raises(TableError, match="no objective"):
            scaling.fit(made.runs(), objective="mae")  # type: ignore[arg-type]

    def test_what_isnt_a_run(self):
        with pytest.raises(TableError, match="row 1 has params=-1"):
            scaling.table(pd.DataFrame({"params": [1.0, -1.0], "tokens": [1.0, 1.0], "loss": [1.0, 1.0]}))
        with pytest.raises(TableError, match="no number in 'loss'"):
            scaling.fit(scaling.table(made.runs().frame.assign(loss=np.nan)))
