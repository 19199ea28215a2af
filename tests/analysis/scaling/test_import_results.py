"""Our results as runs to fit: finished runs once each, with what they were trained on and measured on."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lm.analysis.scaling.importers import read_curves, read_results
from lm.errors import UserError
from lm.train.rows import Rows


def result_folder(root: Path, name: str, runs: list[dict], config: bool = True) -> Path:
    """Results as a sweep leaves them. runs: id, tokens, and a loss if it is done, `length` of its text."""
    (root / name).mkdir(parents=True)
    lines = []
    for run in runs:
        length = run.get("length", 32)
        plain = {
            "model": {"type": "Decoder", "width": 16, "layers": 2, "vocab": 64},
            "train": {"optimizer": {"learning_rate": 1e-3}, "schedule": {"type": "Cosine", "warmup": 3}},
            "data": {"batch": 4, "length": length},
        }
        row = {"id": run["id"], "group": "g", "arm": run["id"], "seed": 5, "params": 1000, "non_embedding": 800}
        row |= {"tokens": run["tokens"], "flops": run["tokens"] * 5000, "point": {"model.width": 16}, "data": "abc"}
        lines.append(json.dumps(row | ({"config": plain} if config else {})))
        folder = root / "runs" / run["id"]
        if folder.exists():
            continue
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(plain))
        with Rows(folder / "rows.jsonl") as rows:
            for step in (1, 2):
                seen = run["tokens"] // 2 * step
                rows.append({"step": step, "split": "train", "loss": 9.0, "tokens": seen})
                rows.append({"step": step, "split": "heldout", "loss": 5.0 - step, "tokens": seen})
        if "loss" in run:
            (folder / "result.json").write_text(json.dumps({"heldout_loss": run["loss"], "tokens": run["tokens"]}))
        if "error" in run:
            (folder / "failure.json").write_text(json.dumps({"error": run["error"]}))
    (root / name / "manifest.jsonl").write_text("".join(line + "\n" for line in lines))
    return root


DONE = [{"id": "a", "tokens": 200, "loss": 3.0}, {"id": "b", "tokens": 1000, "loss": 2.0}]


def test_finished_runs_are_read_once_and_the_others_are_noted(tmp_path):
    runs = [
        *DONE,
        {"id": "c", "tokens": 400},
        {"id": "d", "tokens": 400, "error": "no"},
        {"id": "e", "tokens": 4, "loss": None},
    ]
    root = result_folder(tmp_path / "results", "one", runs)
    result_folder(root, "two", runs[:1])
    read = read_results(root)
    assert list(read.frame["model"]) == ["a", "b"] and read.formula == "exact"
    expected = {
        "params": 1000,
        "params_non_embedding": 800,
        "learning_rate": 1e-3,
        "batch": 128,
        "seed": 5,
        "width": 16,
    }
    for name, value in expected.items():
        assert (read.column(name) == value).all()
    assert (read.column("flops") == 5000 * read.column("tokens")).all() and list(read.column("loss")) == [3, 2]
    assert set(read.frame["schedule"]) == {"Cosine"} and set(read.frame["evaluation"]) == {"heldout"}
    notes = " ".join(read.notes)
    assert "1 of 6 listings left out" in notes
    assert "3 of 5 runs left out: 1 interrupted, 1 failed, 1 without a finite heldout_loss" in notes
    with pytest.raises(UserError, match="did you mean 'heldout_loss'"):
        read_results(root, evaluation="heldot")


def test_no_finished_run_is_an_error(tmp_path):
    root = result_folder(tmp_path, "one", [{"id": "a", "tokens": 8}])
    with pytest.raises(UserError, match=r"none of the 1 runs .* \(1 interrupted\)"):
        read_results(root)


def test_a_manifest_without_configs_reads_those_of_the_folders(tmp_path):
    with_them = read_results(result_folder(tmp_path / "new", "one", DONE))
    without = read_results(result_folder(tmp_path / "old", "one", DONE, config=False))
    pd.testing.assert_frame_equal(with_them.frame, without.frame)


def test_losses_on_different_text_have_different_evaluations(tmp_path):
    read = read_results(result_folder(tmp_path, "one", [DONE[0], {**DONE[1], "length": 64}]))
    assert list(read.frame["evaluation"]) == ["heldout context=32", "heldout context=64"]


def test_unique_tokens_are_those_of_the_data_where_it_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    root = result_folder(tmp_path / "results", "one", DONE)
    unknown = read_results(root)
    assert "unique_tokens" not in unknown.frame and any("unique_tokens" in note for note in unknown.notes)
    (tmp_path / "cache" / "data" / "abc").mkdir(parents=True)
    (tmp_path / "cache" / "data" / "abc" / "meta.json").write_text(json.dumps({"train": {"tokens": 500}}))
    known = read_results(root)
    assert list(known.column("unique_tokens")) == [200, 500] and not known.notes


def test_curves_have_a_row_for_each_evaluation_and_resample_by_run(tmp_path):
    root = result_folder(tmp_path, "one", [*DONE, {"id": "c", "tokens": 400}])
    read = read_curves(root)
    assert list(read.frame["model"]) == ["a", "a", "b", "b"] and list(read.column("loss")) == [4, 3, 4, 3]
    assert list(read.column("tokens")) == [100, 200, 500, 1000] and list(read.frame["final"]) == [False, True] * 2
    assert (read.column("flops") == 5000 * read.column("tokens")).all() and (read.column("params") == 1000).all()
    assert list(read.clusters()) == [0, 0, 1, 1] and "1 of 3 runs left out: 1 interrupted" in read.notes
