"""Scores of other tools: each once, with its model, shots, metric and error; what is missing stays missing."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lm.analysis.scaling.importers import read_bigbench, read_lm_eval
from lm.errors import UserError


def text(tmp_path, content: str, name: str) -> Path:
    path = tmp_path / name
    path.write_text(content)
    return path


# ---- lm-evaluation-harness -------------------------------------------------------------------------------------------


def harness(model: str = "lab/m-70m", revision: str = "", acc: float = 0.25) -> dict:
    return {
        "results": {
            "piqa": {"alias": "piqa", "acc,none": acc, "acc_stderr,none": 0.01, "acc_norm,none": None, "sample_len": 9},
            "gsm8k": {"exact_match,strict": 0.1, "exact_match_stderr,strict": "N/A", "exact_match,flexible": 0.2},
            "mmlu": {"acc,none": 0.5, "acc_stderr,none": 0.02},
        },
        "groups": {"mmlu": {"acc,none": 0.5}},
        "n-shot": {"piqa": 0, "gsm8k": 5},
        "n-samples": {"piqa": {"original": 1838, "effective": 100}},
        "config": {"model_args": f"pretrained={model}" + (f",revision={revision}" if revision else "")},
        "model_name": model,
    }


def test_scores_of_the_harness_with_errors_shots_and_counts(tmp_path):
    read = read_lm_eval(text(tmp_path, json.dumps(harness()), "results_1.json"))
    rows = {(r["task"], r["metric"], r["filter"]): r for r in read.frame.to_dict("records")}
    assert set(rows) == {
        ("piqa", "acc", "none"), ("piqa", "acc_norm", "none"), ("mmlu", "acc", "none"),
        ("gsm8k", "exact_match", "strict"), ("gsm8k", "exact_match", "flexible"),
    }  # fmt: skip
    piqa, strict = rows["piqa", "acc", "none"], rows["gsm8k", "exact_match", "strict"]
    assert (piqa["value"], piqa["stderr"], piqa["n"], piqa["shots"], piqa["group"]) == (0.25, 0.01, 100, 0, False)
    assert strict["shots"] == 5 and np.isnan(strict["stderr"]) and np.isnan(strict["n"])
    assert np.isnan(rows["piqa", "acc_norm", "none"]["value"])  # missing, not 0
    assert rows["mmlu", "acc", "none"]["group"] and set(read.frame["model"]) == {"lab/m-70m"}


def test_the_older_form_of_the_harness(tmp_path):
    older = {
        "results": {"piqa": {"acc": 0.3, "acc_stderr": 0.01}},
        "config": {"model": "hf-causal", "model_args": "pretrained=lab/m-70m,dtype=float32", "num_fewshot": 2},
    }
    row = read_lm_eval(text(tmp_path, json.dumps(older), "old.json")).frame.to_dict("records")
    assert len(row) == 1 and (row[0]["model"], row[0]["metric"], row[0]["filter"]) == ("lab/m-70m", "acc", "none")
    assert (row[0]["value"], row[0]["stderr"], row[0]["shots"]) == (0.3, 0.01, 2)


def test_a_folder_of_models_and_checkpoints_with_their_sizes(tmp_path):
    for i, (model, revision) in enumerate([("lab/m-70m", ""), ("lab/m-70m", "step8"), ("lab/m-1b", "")]):
        (tmp_path / "scores" / str(i)).mkdir(parents=True)
        text(tmp_path / "scores" / str(i), json.dumps(harness(model, revision)), "results.json")
    text(tmp_path / "scores", "{}", "other.json")
    by_name = read_lm_eval(tmp_path / "scores", sizes={"m-70m": 7e7, "lab/m-1b": 1e9})
    assert by_name.notes == ("1 other JSON files of the folder left out: they have no 'results'",)
    assert set(by_name.frame["model"]) == {"lab/m-70m", "lab/m-70m@step8", "lab/m-1b"}
    assert (by_name.column("params") == np.where(by_name.frame["model"] == "lab/m-1b", 1e9, 7e7)).all()
    sizes = text(tmp_path, "model,params,tokens\nm-70m,7e7,3e11\nm-70m@step8,7e7,1e9\nm-1b,1e9,3e11\n", "sizes.csv")
    table = read_lm_eval(tmp_path / "scores", sizes=sizes)
    early = table.select(model="lab/m-70m@step8")
    assert (early.column("tokens") == 1e9).all() and (early.column("flops") == 6 * 7e7 * 1e9).all()
    with pytest.raises(UserError, match=r"no row of the model 'lab/m-1b'; did you mean 'm-1bb'"):
        read_lm_eval(tmp_path / "scores", sizes={"m-70m": 7e7, "m-1bb": 1e9})


def test_one_score_in_two_files_counts_once_and_two_scores_are_an_error(tmp_path):
    one = text(tmp_path, json.dumps(harness()), "results_1.json")
    again = text(tmp_path, json.dumps(harness()), "results_2.json")
    once = read_lm_eval([one, again])
    pd.testing.assert_frame_equal(once.frame, read_lm_eval(one).frame)
    assert "5 of 10 scores left out" in once.notes[0]
    again.write_text(json.dumps(harness(acc=0.26)))
    with pytest.raises(
        UserError, match=r"results_1.json and .*results_2.json have different scores of lab/m-70m in piqa"
    ):
        read_lm_eval([one, again])


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "isn't JSON"), ("{}", "has no 'results'"), ('{"results": {"a": {"acc": 1}}}', "which model")],
)
def test_files_that_arent_of_the_harness(tmp_path, content, said):
    with pytest.raises(UserError, match=said):
        read_lm_eval(text(tmp_path, content, "results.json"))
    with pytest.raises(UserError, match="there is no results file"):
        read_lm_eval([])


# ---- BIG-bench -------------------------------------------------------------------------------------------------------


def bigbench(folder: Path, name: str, size: int | None, value: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model = {"model_family": "F", "model_name": name, "total_params": size, "non_embedding_params": size}
    about = {"preferred_score": "exact", "low_score": 0.0, "high_score": 1.0}
    scores = [
        {
            **about,
            "number_of_shots": shots,
            "subtask_description": sub,
            "score_dict": {"exact": value * shots, "bleu": 3},
        }
        for shots in (0, 1)
        for sub in ("sums:1 digit", "sums:2 digits")
    ]
    return text(folder, json.dumps({"model": model, "scores": scores}), f"scores_{name}.json")


def test_scores_of_bigbench_by_model_shots_subtask_and_metric(tmp_path):
    folder = tmp_path / "sums" / "results"
    bigbench(folder, "1b", 10**9, 0.25)
    bigbench(folder, "8b", 8 * 10**9, 0.75)
    read = read_bigbench(tmp_path)
    assert len(read) == 2 * 2 * 2 * 2 and set(read.frame["task"]) == {"sums"}
    preferred = read.where(read.frame["preferred"].to_numpy(), "not preferred").select(shots=1, subtask="sums:2 digits")
    assert dict(zip(preferred.column("params"), preferred.column("value"), strict=True)) == {1e9: 0.25, 8e9: 0.75}
    assert set(preferred.frame["metric"]) == {"exact"} and set(preferred.frame["model"]) == {"F 1b", "F 8b"}
    assert (preferred.column("params_non_embedding") == preferred.column("params")).all()


def test_bigbench_files_that_are_missing_something_or_say_two_things(tmp_path):
    one = bigbench(tmp_path / "a" / "sums" / "results", "human", None, 0.5)
    assert read_bigbench(one).frame["params"].isna().all()
    with pytest.raises(UserError, match="different values of exact of F human in sums"):
        read_bigbench([one, bigbench(tmp_path / "b" / "sums" / "results", "human", None, 0.6)])
    with pytest.raises(UserError, match="has no 'scores'"):
        read_bigbench(text(tmp_path, "{}", "x.json"))
    with pytest.raises(UserError, match=re.escape("no model.model_name")):
        read_bigbench(text(tmp_path, '{"scores": []}', "x.json"))
