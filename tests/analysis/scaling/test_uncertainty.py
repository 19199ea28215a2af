"""Intervals: do they hold the truth as often as they say?"""

import numpy as np
import pytest

from lm.analysis import scaling
from lm.analysis.tables import TableError
from tests.analysis.scaling import made

NAMES = ("E", "alpha", "beta", "a")


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Nominal 95%, by the bootstrap, over 150 sweeps of 70 runs each, made from one law."""
    truth = {**made.TRUE, "a": 0.37 / 0.72}
    inside = {name: 0 for name in NAMES}
    sweeps = 150
    for seed in range(sweeps):
        runs = made.runs(noise=0.004, seed=seed, sizes=14)
        boot = scaling.fit(runs, objective="squared", starts=1, begin=[made.TRUE]).bootstrap(200, seed)
        for name in NAMES:
            low, high = boot.interval(name)
            inside[name] += low <= truth[name] <= high
    for name in NAMES:
        assert 0.92 <= inside[name] / sweeps <= 0.98, (name, inside[name] / sweeps)


def test_the_covariance_agrees_with_the_bootstrap():
    for objective in ("squared", "huber"):
        found = scaling.fit(made.runs(noise=0.004, sizes=40), objective=objective, starts=8)
        errors = np.sqrt(np.diag(scaling.covariance(found)))
        boot = found.bootstrap(400)
        for name, error in zip(found.params, errors, strict=True):
            assert error == pytest.approx(boot.standard_error(name), rel=0.35), (objective, name)


def test_the_profile_of_a_linear_model_is_students_interval():
    """With all but one parameter known, least squares on the value are linear in it: the profile is a parabola."""
    runs = made.runs(noise=0.01)
    known = {name: value for name, value in made.TRUE.items() if name != "E"}
    found = scaling.fit(runs, objective="squared", on="value", fixed=known, starts=4)
    low, high = scaling.profile(found, "E", width=1.2, points=201).interval()
    error = np.std(runs.column("loss") - found.predicted, ddof=1) / np.sqrt(len(runs))
    assert (low, high) == pytest.approx((found.params["E"] - 1.96 * error, found.params["E"] + 1.96 * error), rel=1e-3)


def test_a_ridge_is_said():
    """With no run beyond a ratio, A and alpha can't be told from one another."""
    one = scaling.fit(made.runs(noise=0.02, budgets=(1e19, 1.1e19)), starts=32)
    assert any("isn't identified" in note for note in one.notes)
    many = scaling.fit(made.runs(noise=1e-3, sizes=20), starts=32)
    assert not any("isn't identified" in note for note in many.notes)
    assert scaling.profile(many, "alpha", width=2).identified


def test_the_published_ridge_of_repeated_tokens(reference):
    """Muennighoff et al. 2023 with their A, B, E, alpha, beta: R_D* isn't determined by their runs."""
    path = reference("data_constrained") / "datablations_fit182_runs.csv"
    runs = scaling.read_csv(path, loss="val_loss")
    known = {
        "A": np.exp(6.255414),
        "B": np.exp(7.3049974),
        "E": np.exp(0.6254804),
        "alpha": 0.3526596,
        "beta": 0.3526596,
    }
    found = scaling.fit(runs, "data_constrained", fixed=known, starts=64)
    assert found.objective < 0.0158259366
    assert found.params == pytest.approx({"R_D": 95.4, "R_N": 1.706}, rel=0.01)
    assert any("R_D" in note and "isn't identified" in note for note in found.notes)


def test_a_bootstrap_is_seeded_and_takes_whole_models():
    runs = made.runs(noise=0.005)
    found = scaling.fit(runs, starts=8)
    first, again, other = found.bootstrap(50, seed=1), found.bootstrap(50, seed=1), found.bootstrap(50, seed=2)
    np.testing.assert_array_equal(first.thetas, again.thetas)
    assert not np.array_equal(first.thetas, other.thetas)
    assert not first.cluster
    grouped = scaling.table(runs.frame.assign(model=np.repeat(np.arange(7), 5)))
    assert scaling.fit(grouped, starts=8).bootstrap(20).cluster
    with pytest.raises(TableError, match="at least 5"):
        scaling.fit(scaling.table(runs.frame.assign(model=np.arange(35) % 3)), starts=8).bootstrap(20)


def test_prediction_bands_are_wider_and_hold_new_runs():
    found = scaling.fit(made.runs(noise=0.005, sizes=20), objective="squared", starts=8)
    boot = found.bootstrap(300)
    new = made.runs(noise=0.005, seed=9, sizes=20)
    columns = {name: new.column(name) for name in ("params", "tokens")}
    low, high = scaling.bands(boot, columns, prediction=True)
    inner = scaling.bands(boot, columns)
    assert np.all(high - low > inner[1] - inner[0])
    inside = np.mean((new.column("loss") >= low) & (new.column("loss") <= high))
    assert 0.88 <= inside <= 1.0
