"""Published scores: read as they are written, known midpoints found, and the largest differences at equal compute."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

from lm.analysis.emergence.midpoints import lead, midpoint, spread_at
from lm.analysis.emergence.published import Curve, Scores, read_bigbench_scores, read_scores
from lm.errors import UserError

ROOT = Path(__file__).parents[3]
VENDORED = ROOT / "experiments" / "emergence" / "published.csv"
REFERENCE = ROOT.parent / "shared" / "reference" / "obsscaling_emergent" / "emergent_with_flops.csv"
HEAD = "model,family,params,tokens,flops"


@pytest.fixture(scope="module")
def scores() -> Scores:
    return read_scores(VENDORED)


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def curve(x: np.ndarray, value: np.ndarray, family: np.ndarray | None = None, chance: float = 0.0) -> Curve:
    model = np.array([f"m{i}" for i in range(len(x))])
    family = model if family is None else family
    about = {"task": "t", "metric": "acc", "shots": np.nan, "over": "flops", "name": "t"}
    return Curve(**about, chance=chance, model=model, family=family, x=x, value=value)  # type: ignore[arg-type]


def logistic(x: np.ndarray, at: float, rate: float, chance: float, top: float) -> np.ndarray:
    return chance + (top - chance) / (1 + np.exp(-rate * (x - at)))


# ---- reading -------------------------------------------------------------------------------------------------


def test_the_vendored_table_is_the_published_one() -> None:
    if not REFERENCE.exists():
        pytest.skip("the published table isn't here: ../shared/reference/obsscaling_emergent")
    assert VENDORED.read_bytes() == REFERENCE.read_bytes()


def test_every_score_of_the_published_table(scores: Scores) -> None:
    raw = pd.read_csv(VENDORED).set_index("Model")
    assert len(scores.frame) == 84 * 9 and scores.frame["model"].nunique() == 84
    for heading, task, metric, scale, chance in (
        ("parsinlu_qa_2_acc", "parsinlu_qa", "acc", 1, 0.25),
        ("ipa_transliterate_2_exact_match", "ipa_transliterate", "exact_match", 1, 0),
        ("ipa_transliterate_2_bleu", "ipa_transliterate", "bleu", 100, 0),
        ("arithmetic_3da_2_acc", "arithmetic_3da", "acc", 1, 0),
        ("MMLU", "MMLU", "score", 1, 0.25),
    ):
        mine = scores.frame.loc[(scores.frame["task"] == task) & (scores.frame["metric"] == metric)]
        there = raw.loc[mine["model"]]
        np.testing.assert_array_equal(mine["value"], there[heading] / scale)
        np.testing.assert_allclose(mine["flops"], there["FLOPs (1E21)"] * 1e21)
        np.testing.assert_allclose(mine["params"], there["Model Size (B)"] * 1e9)
        np.testing.assert_array_equal(mine["family"], there["Model Family"])
        assert set(mine["chance"]) == {chance}
    notes = " ".join((*scores.notes, *scores.left_out("flops")))
    for words in ("Percentages, divided by 100: ipa_transliterate_2_bleu.", "11 of 84 models left out", "Qwen2-72B"):
        assert words in notes
    assert scores.left_out("params") == [f"{int(raw.iloc[:, :8].isna().sum().sum())} of 756 scores are missing."]


def test_curves_have_the_models_with_a_score_and_a_size(scores: Scores) -> None:
    names = {one.name for one in scores.curves()}
    assert {"ipa_transliterate bleu", "ipa_transliterate exact_match", "parsinlu_qa", "MMLU"} < names and len(
        names
    ) == 9
    raw = pd.read_csv(VENDORED)
    both = raw["ipa_transliterate_2_bleu"].notna() & raw["FLOPs (1E21)"].notna()
    one, two = scores.curves(tasks=["ipa_transliterate"])
    assert [one.name, two.name] == ["ipa_transliterate exact_match", "ipa_transliterate bleu"]
    np.testing.assert_array_equal(two.model, raw.loc[both, "Model"])
    np.testing.assert_allclose(two.x, np.log10(raw.loc[both, "FLOPs (1E21)"]) + 21)
    assert [c.name for c in scores.curves("params", ["MMLU", "ipa_transliterate bleu"])] == [
        "MMLU",
        "ipa_transliterate bleu",
    ]


def test_percentages_shots_and_flops_that_a_file_lacks(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "Name,Lab,Size (M),tokens,open,sums_acc,sums_0_acc,sums_5_acc,sums_5_f1",
        "a,A,10,1e9,1,25,0.5,0.1,",
        "b,B,20,2e9,0,50,0.6,0.2,0.3",
    )
    read = read_scores(path, model="Name", family="Lab", params="Size (M)", chance={"Sums": 0.2})
    by_name = {one.name: one for one in read.curves()}
    assert list(by_name) == ["sums acc", "sums acc 0-shot", "sums acc 5-shot", "sums f1"]  # `open` is no score
    assert by_name["sums acc"].value.tolist() == [0.25, 0.5] and by_name["sums acc 5-shot"].value.tolist() == [0.1, 0.2]
    np.testing.assert_allclose(by_name["sums acc"].x, np.log10([6 * 1e7 * 1e9, 6 * 2e7 * 2e9]))
    assert by_name["sums f1"].model.tolist() == ["b"]  # missing, not 0
    assert (by_name["sums acc 5-shot"].chance, by_name["sums f1"].chance) == (0.2, 0.0)
    assert "FLOPs are 6 params tokens." in read.notes


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([HEAD, "a,A,1,2,12"], "no column of scores"),
        (["model,flops,sums_acc", "a,1e20,0.5"], "family of a model: no heading is 'family'"),
        (["model,family,series,flops,sums_acc", "a,A,A,1e20,0.5"], "several columns may be it: family, series"),
        (["family,flops,sums_acc", "A,1e20,0.5"], "names the model"),
        ([HEAD + ",sums_acc", "a,A,1,2,12,0.5", "b,B,1,2,12,none yet"], "line 3 has 'none yet' as sums_acc"),
        ([HEAD + ",sums_acc", "a,A,1,2,12,150"], "line 2 has 150"),
        ([HEAD + ",sums_acc", "a,A,1,2,12,-0.1"], "line 2 has -0.1"),
        ([HEAD + ",sums_acc", "a,A,1,2,12,0.5", "b,,1,2,12,0.5"], "no family (1 score, line 3 first)"),
        ([HEAD + ",sums_acc", "a,A,1,2,12,0.5", "a,A,1,2,12,0.6"], "two rows of a"),
    ],
)
def test_what_cant_be_read_is_said(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        read_scores(write(tmp_path, *lines))


def test_names_that_arent_there_and_sizes_that_arent(tmp_path: Path, scores: Scores) -> None:
    path = write(tmp_path, "model,family,params,sums_acc", "a,A,1,0.5")
    with pytest.raises(UserError, match="did you mean 'sums'"):
        read_scores(path, chance={"sum": 0.5})
    with pytest.raises(UserError, match="share of right answers"):
        read_scores(path, chance={"sums": 1})
    with pytest.raises(UserError, match="has training FLOPs; they have params: take --x params"):
        read_scores(path).curves()
    with pytest.raises(UserError, match="did you mean 'arithmetic_3da'"):
        scores.curves(tasks=["arithmetic_3d_a"])


def test_scores_of_bigbench(tmp_path: Path) -> None:
    folder = tmp_path / "words" / "results"
    folder.mkdir(parents=True)
    for name, size, right in (("s", 10**8, 25.0), ("l", 10**10, 90.0), ("human", None, 95.0)):
        score = {"preferred_score": "acc", "low_score": 25, "high_score": 100, "number_of_shots": 0}
        score |= {"subtask_description": "", "score_dict": {"acc": right, "bleu": right / 2, "loss": 3.0}}
        model = {"model_family": "" if name == "l" else "F", "model_name": name, "total_params": size}
        (folder / f"scores_{name}.json").write_text(json.dumps({"model": model, "scores": [score]}))
    read = read_bigbench_scores(tmp_path)
    acc, bleu = read.curves("params")
    assert (acc.name, bleu.name, acc.chance, bleu.chance) == ("words acc", "words bleu", 0.25, 0.0)
    assert dict(zip(acc.model, acc.value, strict=True)) == {"F s": 0.25, "l": 0.9}
    assert dict(zip(bleu.x, bleu.value, strict=True)) == {8.0: 0.125, 10.0: 0.45}
    assert dict(zip(acc.model, acc.family, strict=True)) == {"F s": "F", "l": "l"}
    assert any("5 of 9 scores left out" in note for note in read.notes)
    assert {one.chance for one in read_bigbench_scores(tmp_path, chance={"words": 0.1}).curves("params")} == {0.1, 0.0}
    with pytest.raises(UserError, match="take --x params"):
        read.curves()


# ---- midpoints -----------------------------------------------------------------------------------------------

KNOWN = {
    "word_unscrambling": 23.86,
    "parsinlu_qa": 24.11,
    "arithmetic_3da": 22.54,
    "arithmetic_2dm": 22.84,
    "ipa_transliterate exact_match": 23.90,
    "ipa_transliterate bleu": 23.43,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_midpoints_are_found_by_one_recipe(scores: Scores, name: str) -> None:
    (one,) = scores.curves(tasks=[name])
    assert midpoint(one, n=2).at == pytest.approx(KNOWN[name], abs=0.01)


@pytest.mark.parametrize(("chance", "top", "rate", "at"), [(0.0, 1.0, 4.0, 22.5), (0.25, 0.6, 2.0, 23.2)])
def test_a_logistic_is_recovered(chance: float, top: float, rate: float, at: float) -> None:
    x = np.linspace(20, 25.5, 60)
    found = midpoint(curve(x, logistic(x, at, rate, chance, top), chance=chance), n=50)
    assert found.at == pytest.approx(at, abs=1e-3)
    assert found.fit.derived["top"] == pytest.approx(top, abs=1e-3)
    assert found.fit.derived["slope"] == pytest.approx((top - chance) * rate / 4, rel=1e-2)
    assert found.error < 1e-4 and found.interval == pytest.approx((at, at), abs=1e-2) and found.known


def best(x: np.ndarray, y: np.ndarray, weights: np.ndarray, chance: float) -> float:
    """The midpoint by SciPy, from many starts."""

    def misses(p: np.ndarray) -> np.ndarray:
        return np.sqrt(weights) * (logistic(x, p[0], min(p[1], 1e3), chance, p[2]) - y)

    bounds = ([x.min() - 30, 0.01, chance], [x.max() + 30, 1e3, 1])
    starts = [(m, k, (1 + chance) / 2) for m in np.linspace(x.min() + 0.3, x.max() - 0.3, 6) for k in (1, 4, 12)]
    return min((least_squares(misses, start, bounds=bounds) for start in starts), key=lambda fit: fit.cost).x[0]


def test_resamples_of_families_are_refitted_to_their_optimum(scores: Scores) -> None:
    """Each end of an interval over 2 resamples that take all is one of them: equal to SciPy's fits of the same ones."""
    (one,) = scores.curves(tasks=["ipa_transliterate exact_match"])
    labels = pd.factorize(one.family)[0]
    count = labels.max() + 1
    for seed in (1, 2, 3):
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=2)[:, labels]
        theirs = sorted(best(one.x, one.value, weights.astype(float), 0.0) for weights in drawn)
        ours = midpoint(one, n=2, seed=seed, level=1 - 1e-9).by_families
        assert ours == pytest.approx(theirs, abs=2e-3)


def test_intervals_hold_the_truth_and_those_of_families_know_that_families_differ() -> None:
    rng = np.random.default_rng(3)
    family = np.repeat([f"f{i}" for i in range(20)], 6)
    x = np.repeat(rng.uniform(22, 24, 20), 6) + rng.uniform(-0.1, 0.1, 120)
    y = logistic(x, 23 + np.repeat(rng.normal(0, 0.2, 20), 6), 5.0, 0.0, 0.9)
    found = midpoint(curve(x, y, family), n=200)
    assert found.by_families[0] < 23 < found.by_families[1]
    width = [high - low for low, high in (found.by_families, found.by_models)]
    assert width[0] > 1.7 * width[1] and found.interval == found.by_families
    few = midpoint(curve(x, y, np.repeat(["a", "b"], 60)), n=50)
    assert np.isnan(few.by_families).all() and few.interval == few.by_models


def test_without_a_rise_there_is_no_midpoint() -> None:
    x = np.linspace(20, 25, 30)
    flat = midpoint(curve(x, np.full(30, 0.25), chance=0.25), n=20)
    assert np.isinf(flat.at) and not flat.known
    begun = np.clip(logistic(x, 26, 3.0, 0.0, 1.0) + np.random.default_rng(0).normal(0, 0.01, 30), 0, 1)
    assert not midpoint(curve(x, begun), n=50).known  # half-way up lies beyond the models
    with pytest.raises(UserError, match="'t' has 4 models with flops; a midpoint takes at least 5"):
        midpoint(curve(x[:4], x[:4] / 30))


def test_the_lead_of_a_softer_metric_is_found_on_the_models_with_both() -> None:
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(20, 26, 60))
    noise = rng.normal(0, 0.02, (2, 60))
    soft = curve(x, logistic(x, 22.6, 3.0, 0.0, 0.8) + noise[0])
    hard = curve(x, logistic(x, 23.1, 3.0, 0.0, 0.8) + noise[1]).where(np.arange(60) % 5 > 0)
    found = lead(soft, hard, n=200)
    assert found.soft.model.tolist() == found.hard.model.tolist() == hard.model.tolist()
    assert found.low < 0.5 < found.high and found.high - found.low < 0.2
    back = lead(hard, soft, n=200)
    assert (back.decades, back.low, back.high) == pytest.approx((-found.decades, -found.high, -found.low))


def test_the_published_lead_of_bleu_over_exact_match(scores: Scores) -> None:
    hard, soft = scores.curves(tasks=["ipa_transliterate"])
    found = lead(soft, hard, n=2)
    assert len(found.soft.x) == 60 and found.decades == pytest.approx(0.41, abs=0.01)


# ---- models of equal compute ---------------------------------------------------------------------------------


def test_the_largest_difference_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.uniform(20, 25, 40), rng.random(40)
    family = rng.choice(["a", "b", "c"], 40)
    for decades in (0.1, 0.5, 2.0):
        found = spread_at(curve(x, y, family), decades)
        pairs = [
            (y[j] - y[i])
            for i in range(40)
            for j in range(40)
            if family[i] != family[j] and abs(x[i] - x[j]) <= decades
        ]
        assert found.difference == max(pairs) > 0
        assert family[found.worse] != family[found.better] and abs(x[found.worse] - x[found.better]) <= decades


def test_of_equal_differences_the_nearer_pair_and_none_within_a_family() -> None:
    x, y = np.array([22.0, 22.3, 22.4, 24.0]), np.array([0.0, 0.0, 1.0, 0.0])
    found = spread_at(curve(x, y, np.array(["a", "b", "c", "c"])))
    assert (found.worse, found.better) == (1, 2)
    with pytest.raises(UserError, match=re.escape("no models of two families within 0.5 decades")):
        spread_at(curve(x, y, np.array(["a", "a", "a", "c"])))


def test_families_differ_at_equal_compute_in_the_published_table(scores: Scores) -> None:
    """OPT-66B and Llama-2-7B, of 7e22 and 8e22 FLOPs: 0.05 and 0.93 of 3-digit additions are right."""
    (one,) = scores.curves(tasks=["arithmetic_3da"])
    near = spread_at(one, 0.1)
    pair = {
        name: one.value[one.model.tolist().index(name)] for name in ("facebook/opt-66b", "meta-llama/Llama-2-7b-hf")
    }
    assert [round(value, 2) for value in pair.values()] == [0.05, 0.93]
    assert near.difference >= max(pair.values()) - min(pair.values())
    assert spread_at(one).difference > 0.97
