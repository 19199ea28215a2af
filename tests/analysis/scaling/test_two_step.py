"""Scores from size and tokens through the loss, with the errors of both steps."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lm.analysis.scaling.laws import LAWS
from lm.analysis.scaling.runs import RunTable, table
from lm.analysis.scaling.two_step import TwoStep, two_step
from lm.analysis.tables import TableError

LOSS = {"E": 0.45, "A": 60.0, "B": 250.0, "alpha": 0.3, "beta": 0.3}
SCORE = {"floor": 0.25, "gain": 0.6, "k": 8.0, "L_0": 0.75}
LARGE: dict[str, Any] = {"params": 7e10, "tokens": 2e12}


def scores(loss: np.ndarray) -> np.ndarray:
    law = LAWS["accuracy"]
    return law.at(law.coordinates(SCORE)[None], {"bits_per_byte": np.atleast_1d(loss)})[0]


def losses(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    law = LAWS["chinchilla"]
    return law.at(law.coordinates(LOSS)[None], {"params": np.atleast_1d(params), "tokens": np.atleast_1d(tokens)})[0]


def runs(noise: float, seed: int = 0) -> RunTable:
    rng = np.random.default_rng(seed)
    size, tokens = np.array(list(itertools.product(np.geomspace(3e7, 1e10, 6), np.geomspace(1e9, 3e11, 6)))).T
    loss = losses(size, tokens) * np.exp(noise * rng.normal(size=36))
    accuracy = scores(loss) + noise * rng.normal(size=36)
    return table(pd.DataFrame({"params": size, "tokens": tokens, "bits_per_byte": loss, "accuracy": accuracy}))


def truth() -> float:
    return float(scores(losses(np.array(LARGE["params"]), np.array(LARGE["tokens"])))[0])


def test_without_noise_it_is_the_score_of_the_loss() -> None:
    both = two_step(runs(0), starts=20)
    assert both.predict(**LARGE) == pytest.approx(truth(), rel=1e-6)


def test_errors_of_both_steps_are_in_the_interval() -> None:
    """Its width is about that of new runs' predictions, and each step alone gives less."""
    both = two_step(runs(0.004), starts=20)
    again = np.array([two_step(runs(0.004, seed), starts=5).predict(**LARGE) for seed in range(1, 21)])
    draws = both.draws(200, **LARGE)
    assert 0.5 < np.std(draws) / np.std(again) < 2
    low, high = both.interval(n=200, **LARGE)
    assert low < truth() < high
    first = [
        both.score.predict(bits_per_byte=both.loss.moved(t).predict(**LARGE)) for t in both.loss.bootstrap(200).thetas
    ]
    at = both.loss.predict(**LARGE)
    second = [both.score.moved(t).predict(bits_per_byte=at) for t in both.score.bootstrap(200).thetas]
    assert min(np.std(first), np.std(second)) < np.std(draws)


def test_a_shared_resample_where_both_steps_saw_the_same_runs() -> None:
    """The same runs in another order aren't the same runs by row: their resamples are drawn apart."""
    both = two_step(runs(0.004), starts=20)
    turned = two_step(table(runs(0.004).frame.iloc[::-1].reset_index(drop=True)), starts=20)
    mixed = TwoStep(both.loss, turned.score)
    for pair, seed in ((both, 3), (mixed, 4)):
        resamples = zip(pair.loss.bootstrap(20, 3).thetas, pair.score.bootstrap(20, seed).thetas, strict=True)
        by_hand = [TwoStep(pair.loss.moved(a), pair.score.moved(b)).predict(**LARGE) for a, b in resamples]
        np.testing.assert_allclose(pair.draws(20, 3, **LARGE), by_hand)


def test_a_second_step_of_several_columns_is_refused() -> None:
    both = two_step(runs(0.004), starts=10)
    with pytest.raises(TableError, match="one column"):
        TwoStep(both.loss, both.loss)


def test_levels_without_meaning_are_refused() -> None:
    with pytest.raises(TableError, match="level"):
        two_step(runs(0.004), starts=10).interval(95, **LARGE)
