"""Every law: its derivatives, and that a fit finds the constants that made its own data. Published fits are in
test_published.py."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lm.analysis.scaling.fitting import fit
from lm.analysis.scaling.law import Law
from lm.analysis.scaling.laws import LAWS
from lm.analysis.scaling.laws.bnsl import BNSL, softplus
from lm.analysis.scaling.laws.downstream import bits_per_byte
from lm.analysis.scaling.laws.power import BatchSize, LearningRate
from lm.analysis.scaling.runs import RunTable, table
from lm.analysis.tables import TableError

SIZES, TOKENS = np.geomspace(1e7, 1e10, 5), np.geomspace(1e9, 1e12, 5)

# What each law's data is made with: published constants where there are some.
TRUE: dict[str, dict[str, float]] = {
    "chinchilla": {"E": 1.8, "A": 480, "B": 2100, "alpha": 0.35, "beta": 0.37},
    "kaplan": {"N_c": 8.8e13, "D_c": 5.4e13, "alpha_N": 0.076, "alpha_D": 0.095},
    "data_constrained": {"E": 1.87, "A": 521, "B": 1488, "alpha": 0.35, "beta": 0.36, "R_D": 15.4, "R_N": 5.3},
    "overtraining": {"E": 1.84, "alpha": 166, "beta": 367, "b": 0.273},
    "moe": {"a": -0.082, "b": -0.108, "c": 0.009, "d": 1.104, "E_start": 1.847, "E_max": 314.0},
    "fine_grained": {"c": 0.47, "g": 2.1, "a": 18.1, "b": 30.8, "alpha": 0.115, "beta": 0.147, "gamma": 0.58},
    "precision": {
        **{"E": 1.8, "A": 480, "B": 2100, "alpha": 0.35, "beta": 0.37},
        **{"gamma_weight": 2.7, "gamma_activation": 2.2, "gamma_cache": 0.95},
    },
    "post_training": {"C": 0.05, "gamma_D": 0.51, "gamma_N": 0.54, "gamma": 0.6},
    "bnsl": {"a": 1.7, "b": 900, "c_0": 0.16, "c_1": -0.1, "d_1": 3e19, "f_1": 0.3},
    "power": {"scale": 0.3, "of_flops": -0.125},
    "learning_rate": {"scale": 1.79, "of_params": -0.713, "of_tokens": 0.307},
    "batch_size": {"scale": 0.58, "of_tokens": 0.571},
    "task_error": {"epsilon": 0.857, "k": 2.2, "gamma": 0.71},
    "accuracy": {"floor": 0.25, "gain": 0.6, "k": 6.0, "L_0": 0.9},
}


def grid(**values: Any) -> pd.DataFrame:
    return pd.DataFrame(list(itertools.product(*values.values())), columns=pd.Index(list(values)))


def inputs(law: Law) -> pd.DataFrame:
    """Runs that tell all of a law's parameters apart."""
    levels: dict[str, Any] = {
        "params": SIZES,
        "tokens": TOKENS,
        "unique_tokens": np.geomspace(1e8, 1e11, 4),
        "experts": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
        "granularity": [1, 2, 4, 8, 16],
        "weight_bits": [3, 6],
        "activation_bits": [3, 6],
        "cache_bits": [2, 4],
        "bits": [3, 4, 6],
        "flops": np.geomspace(1e17, 1e23, 60),
        "loss": np.linspace(1.8, 5, 20),
        "bits_per_byte": np.linspace(0.4, 1.8, 20),
    }
    made = grid(**{name: levels[name] for name in law.columns})
    if "weight_bits" in made:
        made = made.iloc[::3]
    if "unique_tokens" in made:
        made = made.loc[made["unique_tokens"] <= made["tokens"]]
    return made.astype(float).reset_index(drop=True)


def made_by(law: Law, params: dict[str, float], frame: pd.DataFrame | None = None) -> RunTable:
    """The runs with the law's own noiseless prediction as target."""
    frame = inputs(law) if frame is None else frame
    x = {name: frame[name].to_numpy() for name in law.columns}
    return table(frame.assign(**{law.target: law.at(law.coordinates(params)[None], x)[0]}))


def test_every_law_is_tested() -> None:
    assert set(TRUE) == set(LAWS)


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
def test_exact_derivatives_equal_differences(law: Law) -> None:
    frame = inputs(law)
    x = {name: frame[name].to_numpy() for name in law.columns}
    rng = np.random.default_rng(0)
    theta = law.coordinates(TRUE[law.name]) * (1 + 0.02 * rng.normal(size=(3, len(law.parameters))))
    at, slopes = law.slopes(theta, x)
    np.testing.assert_allclose(at, law.at(theta, x), rtol=1e-12)
    for i in range(len(law.parameters)):
        step = np.zeros(theta.shape[1])
        step[i] = 1e-5
        found = (law.at(theta + step, x) - law.at(theta - step, x)) / 2e-5
        np.testing.assert_allclose(
            slopes[:, i], found, rtol=1e-5, atol=1e-7 * np.abs(found).max(), err_msg=law.names[i]
        )


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
def test_a_fit_finds_the_constants_that_made_the_data(law: Law) -> None:
    found = fit(made_by(law, TRUE[law.name]), law, "squared", starts=40)
    assert found.params == pytest.approx(TRUE[law.name], rel=1e-3)
    assert found.agreement >= (0.03 if law.name == "bnsl" else 0.2)  # breaks are looked for in a wide span


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
def test_runs_that_determine_a_law_cause_no_caution(law: Law) -> None:
    frame = inputs(law)
    assert law.caution({name: frame[name].to_numpy() for name in law.columns}) == []


class TestCautions:
    """Runs that can't determine a law's parameters are said to be so."""

    @pytest.mark.parametrize(
        ("law", "columns", "word"),
        [
            ("overtraining", {"params": [1e7, 1e8], "tokens": [2e8, 2e9]}, "alpha and beta"),
            ("data_constrained", {"params": [1e7], "tokens": [2e9], "unique_tokens": [1e9]}, "R_D"),
            ("moe", {"params": [1e7, 1e8], "experts": [1, 8]}, "E_max"),
            ("fine_grained", {"params": [1e7], "tokens": [1e9], "granularity": [1]}, "gamma"),
            ("bnsl", {"flops": [1e18, 2e18]}, "break"),
        ],
    )
    def test_of_poor_designs(self, law: str, columns: dict[str, list[float]], word: str) -> None:
        found = LAWS[law].caution({name: np.array(values, float) for name, values in columns.items()})
        assert any(word in sentence for sentence in found)

    def test_of_bits_that_never_change_or_are_many(self) -> None:
        frame = inputs(LAWS["precision"]).assign(activation_bits=16.0, cache_bits=8.0)
        found = LAWS["precision"].caution({name: frame[name].to_numpy() for name in frame})
        assert len(found) == 2
        assert "gamma_activation is a guess" in found[0]
        assert "gamma_cache and A" in found[1]


class TestLimits:
    """What each law is a special case of, or becomes."""

    def test_data_seen_once_by_models_that_fit_it_is_chinchilla(self) -> None:
        law, params = LAWS["data_constrained"], TRUE["data_constrained"]
        x = {
            "params": np.full(3, 1e7),
            "tokens": np.geomspace(1e9, 1e12, 3),
            "unique_tokens": np.geomspace(1e9, 1e12, 3),
        }
        plain = LAWS["chinchilla"]
        same = plain.coordinates({name: params[name] for name in plain.names})
        np.testing.assert_allclose(law.at(law.coordinates(params)[None], x), plain.at(same[None], x), rtol=1e-12)

    def test_repeating_forever_is_worth_as_much_as_r_d_times_more_tokens(self) -> None:
        law, params = LAWS["data_constrained"], TRUE["data_constrained"]
        unique = 1e9

        def loss(tokens: float, unique: float) -> float:
            x = {"params": np.array([1e6]), "tokens": np.array([tokens]), "unique_tokens": np.array([unique])}
            return float(law.at(law.coordinates(params)[None], x)[0, 0])

        fresh = unique * (1 + params["R_D"])
        assert loss(1e6 * unique, unique) == pytest.approx(loss(fresh, fresh), rel=1e-9)

    def test_full_precision_is_chinchilla(self) -> None:
        law, plain = LAWS["precision"], LAWS["chinchilla"]
        bits = dict.fromkeys(("weight_bits", "activation_bits", "cache_bits"), np.full(5, 200.0))
        x = {"params": SIZES, "tokens": TOKENS, **bits}
        same = plain.coordinates(TRUE["chinchilla"])
        at = law.at(law.coordinates(TRUE["precision"])[None], x)
        np.testing.assert_allclose(at, plain.at(same[None], x), rtol=1e-12)

    def test_one_expert_counts_as_e_start_and_very_many_as_e_max(self) -> None:
        law, p = LAWS["moe"], TRUE["moe"]
        x = {"params": np.full(2, 1e9), "experts": np.array([1.0, 1e15])}
        at = np.log10(law.at(law.coordinates(p)[None], x)[0])
        for found, experts in zip(at, (p["E_start"], p["E_max"]), strict=True):
            wanted = p["a"] * 9 + (p["b"] + p["c"] * 9) * np.log10(experts) + p["d"]
            assert found == pytest.approx(wanted, rel=1e-9)

    def test_experts_stop_helping_at_the_cutoff(self) -> None:
        law, p = LAWS["moe"], TRUE["moe"]
        size = law.derived(p)["N_cutoff"]
        x = {"params": np.full(2, size), "experts": np.array([1.0, 64.0])}
        at = law.at(law.coordinates(p)[None], x)[0]
        assert at[0] == pytest.approx(at[1], rel=1e-9)

    def test_a_break_adds_its_exponent_beyond_it_and_nothing_before(self) -> None:
        law, p = BNSL(1), {**TRUE["bnsl"], "f_1": 0.05}
        x = {"flops": np.array([1e12, 1e13, 1e25, 1e26])}
        y = np.log(law.at(law.coordinates(p)[None], x)[0] - p["a"])
        assert (y[1] - y[0]) / np.log(10) == pytest.approx(-p["c_0"], rel=1e-6)
        assert (y[3] - y[2]) / np.log(10) == pytest.approx(-p["c_0"] - p["c_1"], rel=1e-6)

    def test_optimal_sizes_of_kaplan_grow_by_its_exponent(self) -> None:
        found = fit(made_by(LAWS["kaplan"], TRUE["kaplan"]), "kaplan", starts=30)
        sizes = [found.optimum(flops).params for flops in (1e19, 1e21)]
        assert np.log10(sizes[1] / sizes[0]) / 2 == pytest.approx(found.derived["a"], rel=1e-5)

    def test_laws_of_the_budget_alone(self) -> None:
        """DeepSeek-AI 2024: the best learning rate and batch over FLOPs."""
        for law, params in (
            (LearningRate(over=("flops",)), {"scale": 0.3118, "of_flops": -0.125}),
            (BatchSize(over=("flops",)), {"scale": 0.292, "of_flops": 0.3271}),
        ):
            assert fit(made_by(law, params), law, starts=10).params == pytest.approx(params, rel=1e-6)

    def test_bits_a_byte(self) -> None:
        assert bits_per_byte(np.array([np.log(2) * 4]), 0.25)[0] == pytest.approx(1)

    def test_softplus_of_what_would_overflow(self) -> None:
        np.testing.assert_allclose(softplus(np.array([-1e4, 0.0, 1e4])), [0, np.log(2), 1e4])


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(TableError, match="breaks=-1"):
        BNSL(-1)
    with pytest.raises(TableError, match="span"):
        BNSL(1, span=(1e20, 1e10))
