"""The statistics of an ablation, against scipy and against cases worked by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lm.analysis.paired import compare, holm, mean_interval, seeds_needed
from lm.analysis.tables import TableError
from lm.errors import UserError


def table(values: dict[str, dict[int, float]], **status: str) -> pd.DataFrame:
    rows = [
        {"arm": arm, "seed": seed, "heldout_loss": x, "status": status.get(f"{arm}{seed}", "done")}
        for arm, seeds in values.items()
        for seed, x in seeds.items()
    ]
    return pd.DataFrame(rows)


def seeds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_agrees_with_scipy():
    rng = np.random.default_rng(0)
    base, arm = rng.normal(3, 0.1, 6), rng.normal(3.05, 0.1, 6)
    r = compare(table({"A": seeds(*base), "B": seeds(*arm)}), "A", confidence=0.9)["B"]
    expected = stats.ttest_rel(arm, base)
    interval = expected.confidence_interval(0.9)
    assert r.p == pytest.approx(expected.pvalue, rel=1e-10)
    assert (r.low, r.high) == pytest.approx((interval.low, interval.high), rel=1e-10)
    assert r.mean == pytest.approx(arm.mean()) and r.sd == pytest.approx(arm.std(ddof=1))


def test_known_answer():
    # differences 1, 2, 3: mean 2, sd 1, t = 2 sqrt(3), half-width 4.302653 / sqrt(3); baseline 0, 1, 5 has sd sqrt(7)
    result = compare(table({"A": seeds(0, 1, 5), "B": seeds(1, 3, 8)}), "A")
    r = result["B"]
    assert (r.n, r.pairs, r.difference, r.dz) == (3, 3, 2, 2)
    assert (r.low, r.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert r.delta == pytest.approx(2 / math.sqrt(7))
    assert r.p == pytest.approx(0.0741799, abs=1e-6)
    # at n = 4 the half-width is 3.182446 / 2 = 1.59 < 2
    assert r.verdict == "not resolved at n=3: about 1 more seed" and r.more_seeds == 1
    base = result["A"]
    assert base.verdict == "baseline" and math.isnan(base.difference) and math.isnan(base.p)


@pytest.mark.parametrize("lower, verdict", [(True, "worse"), (False, "better")])
def test_direction(lower, verdict):
    runs = table({"A": seeds(1.0, 1.1, 1.2, 0.9), "B": seeds(2.0, 2.11, 2.2, 1.91)})
    assert compare(runs, "A", lower_is_better=lower)["B"].verdict == verdict


def test_more_seeds_is_the_smallest_that_would_do():
    sd, d = 1.0, 0.3
    n = int(seeds_needed(d, sd))
    half = [stats.t.ppf(0.975, k - 1) * sd / math.sqrt(k) for k in (n - 1, n)]
    assert half[0] >= d > half[1]
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, 5)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    r = compare(table({"A": seeds(*[0.0] * 5), "B": seeds(*(noise + 0.3))}), "A")["B"]
    assert r.more_seeds == n - 5 and f"about {n - 5} more seeds" in r.verdict


def test_absurd_numbers_of_seeds_are_capped():
    r = compare(table({"A": seeds(0, 0, 0, 0), "B": seeds(1, -1, 1, -1 + 1e-6)}), "A")["B"]
    assert r.verdict == "not resolved at n=4: more than 1000 more seeds" and math.isinf(r.more_seeds)


def test_one_seed_has_no_interval():
    result = compare(table({"A": seeds(1.0), "B": seeds(2.0)}), "A")
    r = result["B"]
    assert r.difference == 1
    for name in ("sd", "low", "high", "p", "p_holm", "dz", "delta", "mean_low", "mean_high", "more_seeds"):
        assert math.isnan(getattr(r, name)), name
    assert r.verdict.startswith("not resolved at n=1") and "at least 2" in r.verdict
    assert result.table().loc[1, ["low", "high", "p"]].isna().all()


def test_identical_arms():
    r = compare(table({"A": seeds(1, 2, 3), "B": seeds(1, 2, 3)}), "A")["B"]
    assert r.verdict == "identical at all 3 seeds" and r.p == 1 and (r.low, r.high) == (0, 0) and math.isnan(r.dz)


def test_only_common_seeds_are_paired_and_it_is_said():
    runs = table({"A": {0: 1.0, 1: 2.0, 2: 3.0}, "B": {1: 2.5, 2: 3.6, 3: 9.0}, "C": {7: 1.0, 8: 2.0}})
    result = compare(runs, "A")
    b, c = result["B"], result["C"]
    assert b.n == 3 and b.pairs == 2 and b.difference == pytest.approx(0.55)
    assert b.differences == pytest.approx({1: 0.5, 2: 0.6})
    assert any("B finished 3 seeds" in n and "common seeds 1, 2" in n for n in result.notes)
    assert c.pairs == 0 and math.isnan(c.difference) and "n=0" in c.verdict
    assert any("C finished" in n and "no seed can be paired" in n for n in result.notes)


def test_failed_runs_are_dropped_and_said():
    runs = table(
        {"A": seeds(1, 2, 3), "B": seeds(1.5, 2.5, math.nan), "C": seeds(0, 0)}, A1="failed", C0="failed", C1="running"
    )
    result = compare(runs, "A")
    assert result["A"].n == 2 and result["B"].n == 2 and result["B"].pairs == 1
    assert result["C"].verdict == "no finished run" and math.isnan(result["C"].mean)
    for part in (
        "A, seed 1: status 'failed'",
        "B, seed 2: heldout_loss is missing",
        "C, seed 1: status 'running'",
    ):
        assert any(part in n for n in result.notes), part


def test_a_baseline_that_failed_leaves_nothing_resolved():
    result = compare(table({"A": seeds(1, 2), "B": seeds(1, 2)}, A0="failed", A1="failed"), "A")
    assert result["A"].verdict == "no finished run"
    assert result["B"].n == 2 and math.isnan(result["B"].difference)


def test_errors_name_what_to_do():
    runs = table({"MHA": seeds(1, 2), "MQA": seeds(1, 2)})
    with pytest.raises(UserError, match="'MHa'; did you mean 'MHA'"):
        compare(runs, "MHa")
    with pytest.raises(TableError, match="'heldout_los'; did you mean 'heldout_loss'"):
        compare(runs, "MHA", value="heldout_los")
    with pytest.raises(TableError, match="more than one finished run of seed 0"):
        compare(pd.concat([runs, runs.iloc[:1]]), "MHA")
    with pytest.raises(TableError, match="confidence"):
        compare(runs, "MHA", confidence=95)
    with pytest.raises(TableError, match="no runs"):
        compare(runs.iloc[:0], "MHA")


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1 is .04 .06 .06 .04; the running maximum makes the last .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.8]) == [1, 1]
    some = holm([0.01, math.nan, 0.03])
    assert some[0] == pytest.approx(0.02) and math.isnan(some[1]) and some[2] == pytest.approx(0.03)


def test_the_verdict_follows_the_corrected_p():
    # alone B is resolved (p = 0.03); beside three arms without an effect it isn't
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, 6)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    b = noise + stats.t.isf(0.015, 5) / math.sqrt(6)
    flat = {name: seeds(*(noise[::k] + 0.01)) for name, k in (("C", 1), ("D", -1))}
    alone = compare(table({"A": seeds(*[0.0] * 6), "B": seeds(*b)}), "A")["B"]
    among = compare(table({"A": seeds(*[0.0] * 6), "B": seeds(*b), **flat}), "A")["B"]
    assert alone.p == pytest.approx(0.03) == alone.p_holm and alone.verdict == "worse"
    assert among.p == pytest.approx(0.03) and among.p_holm == pytest.approx(0.09)
    assert among.low > 0 and "more seed" in among.verdict
    # with that many seeds, at the same mean and sd, it would be
    n = int(6 + among.more_seeds)
    t = b.mean() / (b.std(ddof=1) / math.sqrt(n))
    assert (
        3 * 2 * stats.t.sf(t, n - 1) < 0.05 <= 3 * 2 * stats.t.sf(b.mean() / (b.std(ddof=1) / math.sqrt(n - 1)), n - 2)
    )


def test_intervals_cover_and_verdicts_keep_their_level():
    rng, true, reps = np.random.default_rng(11), 0.02, 300
    covered = false_alarms = 0
    for _ in range(reps):
        shared = rng.normal(3, 0.2, 4)
        arms = {
            "A": shared + rng.normal(0, 0.05, 4),
            "B": shared + true + rng.normal(0, 0.05, 4),
            "C": shared + rng.normal(0, 0.05, 4),
        }
        runs = pd.DataFrame(
            {
                "arm": np.repeat(list(arms), 4),
                "seed": [0, 1, 2, 3] * 3,
                "heldout_loss": np.concatenate(list(arms.values())),
            }
        )
        result = compare(runs, "A")
        covered += result["B"].low <= true <= result["B"].high
        false_alarms += result["C"].verdict in ("better", "worse")
    assert stats.binomtest(covered, reps, 0.95).pvalue > 0.001
    assert stats.binomtest(false_alarms, reps, 0.05, alternative="greater").pvalue > 0.001


def test_pairing_removes_the_noise_that_seeds_share():
    rng = np.random.default_rng(5)
    shared = rng.normal(0, 10, 8)
    a, b = shared + rng.normal(0, 0.01, 8), shared + 0.1 + rng.normal(0, 0.01, 8)
    r = compare(table({"A": seeds(*a), "B": seeds(*b)}), "A")["B"]
    assert r.verdict == "worse" and r.high - r.low < 0.1 < mean_interval(b)[1]
