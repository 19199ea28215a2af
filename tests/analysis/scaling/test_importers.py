"""Importers: every number arrives where it belongs, in its unit, and what can't be read is said, with its place."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lm.analysis.scaling.importers import (
    guess_columns,
    in_words,
    read_csv,
    read_wandb,
)
from lm.errors import UserError

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"


def reference(name: str) -> Path:
    path = REFERENCE / name
    if not path.exists():
        pytest.skip(f"the published table {name} isn't in {REFERENCE}")
    return path


def made_up(count: int = 7) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    params, tokens = 10 ** rng.uniform(6, 9, count), 10 ** rng.uniform(8, 11, count)
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": rng.uniform(2, 4, count)})


def text(tmp_path, content: str, name: str = "runs.csv") -> Path:
    path = tmp_path / name
    path.write_text(content)
    return path


def csv(tmp_path, frame: pd.DataFrame, name: str = "runs.csv") -> Path:
    return text(tmp_path, frame.to_csv(index=False), name)


# ---- CSV -------------------------------------------------------------------------------------------------------------


def test_mapped_columns_keep_every_digit_and_the_others_their_names(tmp_path):
    runs = made_up()
    flops = 6 * runs["params"] * runs["tokens"]
    file = pd.DataFrame(
        {"Model Size": runs["params"], "Training FLOP": flops, "L": runs["loss"], "lab": list("abcdefg")}
    )
    read = read_csv(csv(tmp_path, file), params="Model Size", flops="Training FLOP", loss="L")
    for name in ("params", "loss"):
        assert (read.column(name) == runs[name]).all()
    np.testing.assert_allclose(read.column("tokens"), runs["tokens"], rtol=1e-14)
    assert list(read.frame["lab"]) == list("abcdefg") and set(read.frame) == {
        "params",
        "flops",
        "loss",
        "lab",
        "tokens",
    }
    assert read.formula == "6ND" and read.notes == ("tokens are flops / (6 params)",)


def test_our_own_names_need_no_map_and_flops_follow(tmp_path):
    runs = made_up()
    read = read_csv(csv(tmp_path, runs))
    assert (read.frame[list(runs)] == runs).all(axis=None)
    assert (read.column("flops") == 6 * runs["params"] * runs["tokens"]).all()
    swapped = read_csv(csv(tmp_path, runs), params="tokens", tokens="params")  # names that change places don't collide
    assert (swapped.column("params") == runs["tokens"]).all() and (swapped.column("tokens") == runs["params"]).all()


@pytest.mark.parametrize(
    ("unit", "factor"), [("(B)", 1e9), ("(m)", 1e6), ("[T]", 1e12), ("(1E9)", 1e9), ("(10^9)", 1e9), ("(total)", 1)]
)
def test_a_heading_with_a_unit_is_multiplied_and_noted(tmp_path, unit, factor):
    runs = made_up()
    heading = f"Model Size {unit}"
    file = runs.assign(**{heading: runs["params"] / factor}).drop(columns="params")
    read = read_csv(csv(tmp_path, file), params=heading)
    np.testing.assert_allclose(read.column("params"), runs["params"], rtol=1e-14)
    assert bool(read.notes) == (factor != 1)


def test_several_losses_give_a_row_each_and_rows_of_one_run_stay_together(tmp_path):
    runs = made_up()
    file = runs.assign(wiki=runs["loss"] + 1, code=runs["loss"] - 1).drop(columns="loss")
    file.loc[2, "code"] = np.nan
    read = read_csv(csv(tmp_path, file), loss=["wiki", "code"])
    wiki, code = read.select(evaluation="wiki"), read.select(evaluation="code")
    assert (wiki.column("loss") == file["wiki"]).all() and (code.column("loss") == file["code"].dropna()).all()
    assert read.notes == ("1 of 14 losses left out: they are missing",)
    sizes = pd.Series(read.column("params")).groupby(read.clusters())
    assert sizes.ngroups == len(runs) and (sizes.nunique() == 1).all()


def test_an_empty_cell_is_missing_and_blank_lines_are_none(tmp_path):
    read = read_csv(text(tmp_path, "params,tokens,loss\n1e6,2e8,3\n\n2e6,2e8,\n"))
    assert len(read) == 2 and np.isnan(read.frame["loss"][1])
    with pytest.raises(UserError, match="1 of 2 runs have no number in 'loss'"):
        read.column("loss")


@pytest.mark.parametrize(
    ("content", "names", "said"),
    [
        (
            "Model Size,loss\n1e6,3\n",
            {"params": "Model Siz"},
            "no column for params, no 'Model Siz'; did you mean 'Mod",
        ),
        ("params,tokens,loss\n1e6,1e8,3\n\n7B,1e8,3\n", {}, "line 4 has the text '7B' where params must be a number"),
        ("size (B),tokens,loss\n7,1,3\nbig,1,3\n", {"params": "size (B)"}, "line 3 has the text 'big'"),
        ("", {}, "is empty"),
        ("params,tokens,loss\n\n", {}, "no rows"),
        ("params,loss,loss\n1e6,3,4\n", {}, "two columns 'loss'"),
        (
            "params,N,loss\n1e6,1e6,3\n",
            {"params": "N"},
            "two columns for params: 'N', as you say, and its own 'params'",
        ),
        ("params,loss\n1e6,3,4\n1e6,3,5\n", {}, "isn't a table"),
        ("params,tokens,loss\n1e6,-1e8,3\n", {}, "tokens=-1e.08; it must be positive"),
        ("a,b\n1,2\n", {}, "say which of its columns they are"),
        ("params,tokens,flops,loss\n1e6,1e8,6e14,3\n1e6,1e8,9e14,3\n", {}, "line 3 has flops=9e.14.*formula='exact'"),
        ("params,a,loss\n1e6,3,4\n", {"loss": ["a"]}, "its own column 'loss'"),
        ("params,a\n1e6,3\n", {"loss": ["a", "a"]}, "given twice"),
        ("params,a\n1e6,3\n", {"loss": ["b"]}, "no 'b'"),
        ("params,flops,loss\n1e6,6e14,3\n", {"formula": "+head"}, "give a tokens column"),
    ],
)
def test_what_cant_be_read_is_said_with_its_place(tmp_path, content, names, said):
    path = text(tmp_path, content)
    with pytest.raises(UserError, match=said) as error:
        read_csv(path, **names)
    assert "\n" not in str(error.value)


def test_a_file_that_isnt_there(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(UserError, match="is a folder"):
        read_csv(tmp_path)


def test_what_the_errors_advise_works(tmp_path):
    twice = text(tmp_path, "params,N,tokens,loss\n1e6,2e6,1e8,3\n")
    assert read_csv(twice, params="N", other_params="params").frame.loc[0, ["params", "other_params"]].tolist() == [
        2e6,
        1e6,
    ]
    exact = text(tmp_path, "params,tokens,flops,loss\n1e6,1e8,9e14,3\n")
    assert read_csv(exact, formula="exact").column("flops") == [9e14]


# ---- guessing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headings",
    [
        {"params": "Model Size", "flops": "Training FLOP", "loss": "loss"},
        {"params": "N", "tokens": "D", "loss": "L"},
        {"params": "num_params", "flops": "FLOPs", "loss": "final_loss"},
        {"params": "Model Size (B)", "tokens": "Pretraining Data Size (T)", "loss": "val_loss", "model": "Model"},
        {"params": "params", "tokens": "tokens", "unique_tokens": "unique_tokens", "loss": "heldout_loss"},
    ],
)
def test_usual_headings_are_known_however_they_are_written(tmp_path, headings):
    draw = random.Random(0)
    for change in (str, str.upper, str.lower, lambda h: h.replace("_", " "), lambda h: h.replace(" ", "-")):
        written = {ours: change(theirs) for ours, theirs in headings.items()}
        columns = [*written.values(), "batch_size", "x", "train_loss"]
        draw.shuffle(columns)
        path = csv(tmp_path, pd.DataFrame([[1.5] * len(columns)], columns=pd.Index(columns)))
        found = guess_columns(path)
        assert found == written
        assert all(f"{ours} is '{theirs}'" in in_words(found) for ours, theirs in written.items())
        assert (read_csv(path, **found, formula="6ND").column("loss") == 1.5).all()


@pytest.mark.parametrize(
    ("headings", "said"),
    [
        ("N,D,val_loss,test_loss", "may be loss: 'val_loss', 'test_loss'; say which: loss='val_loss'"),
        ("size,params,D,loss", "may be params: 'size', 'params'"),
        ("N,D,loss c4,loss wiki,bloss", "loss='loss c4'; may be: 'loss c4', 'loss wiki'"),
        ("N,loss", "is tokens or flops"),
        ("x,y", "which column of .* is params; .*e.g. params='x'"),
    ],
)
def test_what_cant_be_guessed_is_asked_for(tmp_path, headings, said):
    with pytest.raises(UserError, match=said):
        guess_columns(text(tmp_path, f"{headings}\n{','.join('1' * len(headings.split(',')))}\n"))


def test_what_is_given_isnt_guessed(tmp_path):
    path = text(tmp_path, "N,params,D,val_loss,test_loss\n1,2,3,4,5\n")
    found = guess_columns(path, params="N", loss=["val_loss", "test_loss"])
    assert found == {"params": "N", "loss": ["val_loss", "test_loss"], "tokens": "D"}  # the other size isn't taken
    assert guess_columns(path, loss="val_loss")["params"] == "params"  # a word before a letter
    assert "loss" not in guess_columns(text(tmp_path, "N,a\n1,2\n"), need=("params",))


# ---- Weights & Biases ------------------------------------------------------------------------------------------------


def test_every_form_of_an_export_gives_the_same_runs(tmp_path):
    runs = made_up()
    objects = [
        {
            "name": f"run-{i}",
            "state": "finished",
            "config": {"model": {"size": row.params}, "lr": {"value": 1e-3, "desc": None}},
            "summary": {"val/loss": row.loss, "tokens": row.tokens, "best": float("nan"), "note": "a nan, b"},
        }
        for i, row in enumerate(runs.itertuples())
    ]
    objects.append({**objects[0], "name": "x", "state": "crashed"})
    names = {"params": "config.model.size", "tokens": "summary.tokens", "loss": "summary.val/loss", "model": "name"}
    lines = text(tmp_path, "".join(json.dumps(o) + "\n" for o in objects), "runs.jsonl")
    printed = csv(tmp_path, pd.DataFrame([{k: str(v) for k, v in o.items()} for o in objects]), "printed.csv")
    flat = pd.json_normalize([{**o, "config": {"model": o["config"]["model"], "lr": 1e-3}} for o in objects])
    tables = [
        read_wandb(path, **names, learning_rate="config.lr")
        for path in (lines, printed, csv(tmp_path, flat, "flat.csv"))
    ]
    for read in tables:
        assert read.notes == ("1 of 8 runs left out: 1 crashed",)
        assert (read.frame[list(runs)] == runs).all(axis=None) and (read.column("learning_rate") == 1e-3).all()
        assert read.frame["model"].nunique() == len(runs) and read.frame["summary.best"].isna().all()
        assert set(read.frame["summary.note"]) == {"a nan, b"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("runs.jsonl", '{"a": 1}\nno\n', "line 2 isn't JSON"),
        ("runs.jsonl", "", "is empty"),
        ("runs.jsonl", "[1]\n", "line 1 holds no JSON object"),
        ("runs.jsonl", '{"config": {"lr": 1}}\n', "no column for params, no 'config.size'"),
        ("runs.csv", "name,config\na,\"{'lr': 1}\"\nb,{broken\n", "line 3 holds no dict"),
        ("runs.csv", "State,config.size\nrunning,1e6\n", "none of the 1 runs"),
    ],
)
def test_an_export_that_cant_be_read(tmp_path, name, content, said):
    with pytest.raises(UserError, match=said):
        read_wandb(text(tmp_path, content, name), params="config.size")


# ---- published tables ------------------------------------------------------------------------------------------------


def test_the_chinchilla_points():
    path = reference("besiroglu/svg_extracted_data.csv")
    guessed = guess_columns(path)
    assert guessed == {"params": "Model Size", "flops": "Training FLOP", "loss": "loss"}
    read = read_csv(path, **guessed)
    assert len(read) == 245 and len(read.without_highest_losses(5)) == 240
    np.testing.assert_allclose(6 * read.column("params") * read.column("tokens"), read.column("flops"), rtol=1e-12)


def test_the_runs_with_repeated_data():
    path = reference("data_constrained/datablations_fit182_runs.csv")
    read = read_csv(path, **guess_columns(path))
    assert len(read) == 182 and (read.column("unique_tokens") <= read.column("tokens")).all()


def test_the_overtrained_runs_on_several_texts():
    path = reference("gadre_overtraining/models_losses.csv")
    losses = [c for c in pd.read_csv(path, nrows=0).columns if c.startswith("loss_")]
    with pytest.raises(UserError, match=f"may be: '{losses[0]}', '{losses[1]}'"):
        guess_columns(path)
    read = read_csv(path, loss=losses, model="name", architecture="model", learning_rate="lr")
    assert len(read) == 104 * len(losses) and len(set(read.clusters())) == 104
    assert len(read.select(evaluation=losses[0], train_data="c4_original")) < 104


def test_the_benchmarks_of_public_models_in_their_units():
    path = reference("obsscaling_emergent/emergent_with_flops.csv")
    read = read_csv(path, **guess_columns(path, need=("params", "flops")))
    llama = read.select(model="meta-llama/Llama-2-7b-hf")
    assert (llama.column("params"), llama.column("tokens"), llama.column("flops")) == (7e9, 2e12, 84 * 1e21)


def test_importing_needs_neither_jax_nor_the_sweeps():
    heavy = "jax", "lm.sweep", "duckdb"
    code = f"import sys, lm.analysis.scaling.importers; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
