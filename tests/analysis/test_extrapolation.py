"""The section on lengths says what the rows say: which lengths, how they change, and which have no positions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lm.analysis.extrapolation import length_table, said, series_of, with_lengths
from lm.analysis.report import Report, Section
from lm.analysis.style import spread_apart

NAMED = {"lengths": "", "YaRN": "YaRN"}
LOSS = {  # arm and split -> the loss in rows of 8, 16 and 32 tokens
    ("RoPE", "lengths"): (2.0, 2.1, 2.4),
    ("RoPE", "YaRN"): (2.0, 1.9, 1.85),
    ("learned", "lengths"): (2.05, None, None),
    ("none", "lengths"): (2.1, 2.1, 2.1),
}
NOISE = {"none": (0.2, 0.0, -0.2)}


def curves() -> pd.DataFrame:
    rows = []
    for (arm, split), losses in LOSS.items():
        for seed in range(3):
            row = {"arm": arm, "seed": seed, "step": 10, "split": split}
            for length, value in zip((8, 16, 32), losses, strict=True):
                if value is not None:
                    more = NOISE.get(arm, (0.0, 0.0, 0.0))[seed] * (length == 32)
                    row[f"loss_{length}"] = value + 0.001 * seed + more
            rows.append(row)
            rows.append({"arm": arm, "seed": seed, "step": 10, "split": "heldout", "loss": 2.0})
    early = [
        {**row, "step": 5, **({"loss_32": 9.0} if "loss_32" in row else {})} for row in rows
    ]  # only the last counts
    return pd.DataFrame(early + rows)


def details(longest: int = 32) -> pd.DataFrame:
    rows = []
    for (arm, split), losses in LOSS.items():
        for seed in range(3 if losses[-1] else 0):
            rows += [
                {
                    "arm": arm,
                    "seed": seed,
                    "split": split,
                    "step": 10,
                    "name": f"loss_{longest}",
                    "index": i,
                    "value": 2.0,
                }
                for i in range(longest)
            ]
    return pd.DataFrame(rows)


def test_each_arm_and_each_scaling_is_a_series() -> None:
    found = {s.name: s for s in series_of(curves(), NAMED)}
    assert list(found) == ["RoPE", "RoPE, YaRN", "learned", "none"]
    assert found["learned"].lengths() == [8] and found["RoPE, YaRN"].lengths() == [8, 16, 32]
    assert found["RoPE"].change(32, 8) == pytest.approx([0.4] * 3)
    assert found["learned"].change(32, 8) == []


def test_what_is_said_follows_the_interval_over_seeds() -> None:
    found = series_of(curves(), NAMED)
    table = length_table(found, trained=8).set_index("series", drop=False)
    words = {s.name: said(s, table.loc[s.name].to_dict(), 8, 32) for s in found}
    assert words["RoPE"].startswith("RoPE: gets worse, +0.4000 nats")
    assert words["RoPE, YaRN"].startswith("RoPE, YaRN: gets better, -0.1500")
    assert words["none"].startswith("none: no change that the seeds resolve")
    assert words["learned"] == "learned: no positions beyond 8."
    half = 4.30265 * 0.2 / np.sqrt(3)  # Student's t, two degrees of freedom
    assert table.loc["none", ["low", "high"]].tolist() == pytest.approx([-half, half], rel=1e-4)


def test_a_length_without_positions_is_never_a_number() -> None:
    report = Report(title="T", sections=(Section(heading="Question", items=("Q?",)),))
    whole = with_lengths(report, curves(), details(), NAMED, trained=8, baseline="RoPE")
    assert {plot.name for plot in whole.plots} == {"loss_over_length", "loss_by_position"}
    (table,) = whole.tables
    cells = {row[0]: row[1:] for row in table.cells}
    assert cells["learned"] == ["2.0510", "no positions", "no positions", "no positions"]
    assert cells["RoPE"][0] == "2.0010" and cells["RoPE"][-1].startswith("+0.4000 [")
    assert "nan" not in whole.text()


def test_a_report_without_such_measures_is_left_as_it_is() -> None:
    report = Report(title="T", sections=())
    none = curves().loc[lambda c: c["split"] == "heldout"]
    assert with_lengths(report, none, details(), NAMED, trained=8, baseline="RoPE") is report


@pytest.mark.parametrize("seed", range(20))
def test_labels_move_as_little_as_may_be(seed: int) -> None:
    """Against a solver that knows nothing of groups: least squares with gaps of at least 2."""
    from scipy.optimize import minimize

    spots = np.sort(np.random.default_rng(seed).uniform(0, 8, size=6))
    found = np.array(spread_apart(spots.tolist(), 2.0))
    assert (np.diff(found) >= 2 - 1e-9).all()
    gaps = {"type": "ineq", "fun": lambda x: np.diff(x) - 2}
    best = minimize(lambda x: ((x - spots) ** 2).sum(), np.arange(6) * 2.5, constraints=gaps, tol=1e-12)
    assert ((found - spots) ** 2).sum() == pytest.approx(best.fun, abs=1e-6)


def test_labels_that_have_room_stay() -> None:
    assert spread_apart([0.0, 5.0, 9.0], 2.0) == [0.0, 5.0, 9.0] and spread_apart([], 2.0) == []
