"""What a law is used for: optima, frontiers, multipliers, comparisons, designs."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lm.analysis import scaling
from lm.analysis.tables import TableError
from tests.analysis.scaling import made


@pytest.fixture(scope="module")
def exact():
    return scaling.fit(made.runs(), starts=8)


@pytest.mark.parametrize("flops", [1e17, 1e20, 1e24])
def test_the_optimum_is_the_closed_form(exact, flops):
    best = exact.optimum(flops)
    assert best.params == pytest.approx(made.optimum(flops), rel=1e-3)
    assert 6 * best.params * best.tokens == pytest.approx(flops)
    assert best.loss == pytest.approx(made.law(best.params, best.tokens), rel=1e-5)
    assert bool(best.notes) == (flops > 2.56e21)


def test_serving_makes_models_smaller_and_is_paid_for(exact):
    alone, served = exact.optimum(1e20), exact.optimum(1e20, served=1e11)
    assert served.params < alone.params and served.loss > alone.loss
    assert served.flops + 2 * served.params * 1e11 == pytest.approx(1e20)
    # no other size does better for the same lifetime
    for factor in (0.8, 0.95, 1.05, 1.25):
        params = served.params * factor
        tokens = (1e20 - 2 * params * 1e11) / (6 * params)
        assert exact.predict(params=params, tokens=tokens) > served.loss


def test_budget_and_optimum_are_inverse(exact):
    assert scaling.budget_for(exact, exact.optimum(3e19).loss) == pytest.approx(3e19, rel=1e-4)
    assert scaling.cost_of(exact, *((b := exact.optimum(1e19)).params, b.tokens)) == pytest.approx(1, rel=1e-3)
    assert scaling.cost_of(exact, b.params * 4, b.tokens / 4) > 1.1
    with pytest.raises(TableError, match="below what the law reaches"):
        scaling.budget_for(exact, made.TRUE["E"] - 0.01)


def test_the_frontier_is_what_nothing_cheaper_beats():
    runs = made.runs(noise=0.02)
    kept = scaling.frontier(runs)
    flops, loss = runs.column("flops"), runs.column("loss")
    for c, value in zip(kept.column("flops"), kept.column("loss"), strict=True):
        assert not np.any((flops <= c) & (loss < value))
    assert len(kept) < len(runs)


def test_a_method_that_makes_each_flop_count_twice_has_a_multiplier_of_two(exact):
    """The new method sees what the old one would with twice the compute, at every size."""
    twice = {**made.TRUE, "B": made.TRUE["B"] * 2 ** -made.TRUE["beta"]}  # each token counts twice
    new = scaling.fit(made.runs(noise=0.002, p=twice, seed=1), starts=8)
    old = scaling.fit(made.runs(noise=0.002, seed=2), starts=8)
    found = scaling.multiplier(old, new, 1e20, n=100)
    best = made.optimum(1e20, twice)
    truth_loss = made.law(best, 1e20 / (6 * best), twice)
    truth = scaling.budget_for(exact, truth_loss) / 1e20
    assert found.low <= truth <= found.high and found.low > 1.3
    same = scaling.multiplier(old, scaling.fit(made.runs(noise=0.002, seed=3), starts=8), 1e20, n=100)
    assert same.low <= 1 <= same.high


def test_losses_of_other_texts_arent_compared(exact):
    other = dataclasses.replace(exact, runs=scaling.table(exact.runs.frame.assign(evaluation="wiki")))
    mine = dataclasses.replace(exact, runs=scaling.table(exact.runs.frame.assign(evaluation="c4")))
    with pytest.raises(TableError, match="different texts"):
        scaling.multiplier(mine, other, 1e20)


@pytest.mark.parametrize(
    ("change", "words"),
    [({}, "aren't told apart"), ({"E": 1.8}, "the floor"), ({"alpha": 0.38, "beta": 0.33}, "exponents")],
)
def test_what_moved_is_found(change, words):
    first = scaling.fit(made.runs(noise=0.002, sizes=12, seed=1), objective="squared", starts=8)
    second = scaling.fit(
        made.runs(noise=0.002, sizes=12, seed=2, p={**made.TRUE, **change}), objective="squared", starts=8
    )
    found = scaling.compare_laws(first, second, n=60)
    assert words in found.answer, found.models.to_string()


def test_a_design_beats_a_grid_of_equal_cost():
    grid = [(n, d) for n in np.geomspace(1e6, 1e9, 12) for d in np.geomspace(2e7, 2e10, 12)]
    candidates = pd.DataFrame(grid, columns=pd.Index(["params", "tokens"])).assign(
        flops=lambda t: 6 * t.params * t.tokens
    )
    usual = made.runs(budgets=(1e18, 3e18, 1e19), sizes=6).frame
    planned = scaling.design("chinchilla", made.TRUE, candidates, float(usual["flops"].sum()), target="a")
    assert planned.flops <= usual["flops"].sum()
    assert planned.error < 0.8 * scaling.grid_error("chinchilla", made.TRUE, usual, target="a")
    assert planned.detects() > planned.error
    twice = scaling.design("chinchilla", made.TRUE, candidates, 2 * float(usual["flops"].sum()), target="a")
    assert twice.error < planned.error
    with pytest.raises(TableError, match="aren't enough"):
        scaling.design("chinchilla", made.TRUE, candidates, 1e15)


def test_a_designs_error_is_what_fits_of_such_runs_have():
    grid = [(n, d) for n in np.geomspace(1e6, 1e9, 8) for d in np.geomspace(2e7, 2e10, 8)]
    candidates = pd.DataFrame(grid, columns=pd.Index(["params", "tokens"])).assign(
        flops=lambda t: 6 * t.params * t.tokens
    )
    planned = scaling.design("chinchilla", made.TRUE, candidates, 1e20, target="alpha", noise=0.002)
    frame = planned.runs.loc[planned.runs.index.repeat(planned.runs["count"])].reset_index(drop=True)
    found = []
    for seed in range(60):
        noise = np.exp(0.002 * np.random.default_rng(seed).standard_normal(len(frame)))
        runs = scaling.table(frame.assign(loss=made.law(frame["params"], frame["tokens"]) * noise))
        found.append(scaling.fit(runs, objective="squared", starts=1, begin=[made.TRUE]).params["alpha"])
    assert np.std(found) == pytest.approx(planned.error, rel=0.3)
