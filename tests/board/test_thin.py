"""Thinning and smoothing of curves, and flat configs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.board.run_files import MISSING, differences, flat
from lm.board.thin import smooth, thin


@given(st.integers(1, 6000), st.sampled_from([30, 100, 1000]), st.integers(0, 10**6))
def test_a_thinned_curve_keeps_its_ends_its_extremes_and_its_order(n, most, seed):
    values = np.random.default_rng(seed).normal(size=n)
    kept = thin(values, most)
    assert len(kept) <= most and kept[0] == 0 and kept[-1] == n - 1
    assert (np.diff(kept) > 0).all()
    assert {values.argmin(), values.argmax()} <= set(kept.tolist())
    assert n > most or len(kept) == n


def test_early_steps_and_gaps_survive():
    values = np.linspace(2, 1, 100_000)
    values[50_000:60_000] = np.nan
    kept = thin(values, 1000)
    assert (kept < 100).sum() > 50  # a logarithmic axis shows them as wide as the rest
    assert np.isnan(values[kept]).any()


def test_smoothing_is_the_weighted_mean_of_what_came_before():
    values = np.array([3.0, np.nan, 1.0, 4.0])
    found = smooth(values, 0.5)
    assert found[[0, 2, 3]] == pytest.approx([3, (1 + 0.5 * 3) / 1.5, (4 + 0.5 * 1 + 0.25 * 3) / 1.75])
    assert np.isnan(found[1])
    assert smooth(np.full(9, 2.0), 0.9) == pytest.approx(2)
    assert smooth(values, 0) is values


def test_differences_of_configs_by_path():
    a = {
        "type": "Run",
        "model": {"type": "A", "heads": 8, "blocks": [{"type": "B", "x": 1}, {"type": "B", "x": 2}]},
        "n": [1, 2],
    }
    b = {
        "type": "Run",
        "model": {"type": "C", "heads": 8, "blocks": [{"type": "B", "x": 1}, {"type": "B", "x": 3}]},
        "n": [1],
    }
    assert flat(a)["model.blocks.1.x"] == 2 and flat(a)["model"] == "A" and flat(a)["n"] == [1, 2]
    assert differences(flat(a), flat(b)) == [("model", "A", "C"), ("model.blocks.1.x", 2, 3), ("n", [1, 2], [1])]
    assert differences(flat(a), flat(a)) == []
    del b["n"]
    assert ("n", [1, 2], MISSING) in differences(flat(a), flat(b))
