"""The number of breaks is found where it is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lm.analysis.scaling.breaks import aicc, choose_breaks
from lm.analysis.scaling.fitting import fit
from lm.analysis.scaling.laws.bnsl import BNSL
from lm.analysis.scaling.runs import RunTable, table
from lm.analysis.tables import TableError

PLAIN = {"a": 1.5, "b": 300.0, "c_0": 0.12}
BENT = {**PLAIN, "c_1": 0.2, "d_1": 1e20, "f_1": 0.3}


def runs(params: dict[str, float], count: int = 40, noise: float = 1e-3) -> RunTable:
    law, x = BNSL(len(params) // 3 - 1), {"flops": np.geomspace(1e17, 1e23, count)}
    loss = law.at(law.coordinates(params)[None], x)[0]
    return table(pd.DataFrame(x | {"loss": loss * np.exp(noise * np.random.default_rng(0).normal(size=count))}))


@pytest.mark.parametrize(("params", "breaks"), [(PLAIN, 0), (BENT, 1)])
def test_both_ways_find_the_number_of_breaks(params: dict[str, float], breaks: int) -> None:
    found = choose_breaks(runs(params), 2, starts=20)
    assert found.chosen == replace(found, by="held_out").chosen == breaks
    assert found.notes == ()
    assert len(found.fit.params) == 3 * (breaks + 1)
    if breaks:
        assert found.fit.params["d_1"] == pytest.approx(params["d_1"], rel=0.5)


def test_it_is_said_where_the_two_ways_disagree() -> None:
    found = choose_breaks(runs(BENT), 1, starts=10)
    turned = replace(found, table=found.table.assign(held_out=[0.0, 1.0]))
    assert "AICc chooses 1 breaks, held-out error 0" in turned.notes[0]


def test_more_breaks_never_fit_worse() -> None:
    objective = choose_breaks(runs(BENT), 3, starts=5).table["objective"].to_numpy()
    assert (np.diff(objective) <= 1e-12).all()


def test_too_few_runs_for_so_many_breaks_are_said() -> None:
    found = choose_breaks(runs(PLAIN, count=9), 3, starts=10)
    assert np.isnan(found.table["aicc"].iloc[3])
    assert "12 parameters" in found.table["note"].iloc[3]


def test_aicc_is_a_likelihood_with_a_penalty() -> None:
    """Twice the log likelihood of normal residuals, less its constant, for the deviation that makes it largest."""
    found = fit(runs(PLAIN), BNSL(0), starts=10)
    r, n, k = np.log(found.predicted / found.observed), 40, 4
    deviation = np.sqrt(np.mean(r**2))
    likelihood = -np.sum(r**2) / (2 * deviation**2) - n * np.log(deviation)
    assert aicc(found) == pytest.approx(-2 * likelihood - n + 2 * k + 2 * k * (k + 1) / (n - k - 1), rel=1e-9)


@pytest.mark.parametrize("options", [{"by": "bic"}, {"largest": 1.5}])
def test_unknown_ways_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(TableError):
        choose_breaks(runs(PLAIN), 1, **options)  # type: ignore[arg-type]


def test_aicc_of_another_objective_is_refused() -> None:
    with pytest.raises(TableError, match="least squares"):
        aicc(fit(runs(PLAIN), BNSL(0), "huber", starts=10))
