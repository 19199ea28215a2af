"""lm fit: from a file to a report."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from lm.analysis.scaling.laws import LAWS
from tests.analysis.scaling import made


def lm(*arguments, cwd):
    command = [sys.executable, "-m", "lm", "fit", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    frame = made.runs(noise=0.003, sizes=9).frame.rename(columns={"params": "Model Size", "loss": "val_loss"})
    frame.drop(columns="tokens").to_csv(folder / "runs.csv", index=False)
    return folder / "runs.csv"


def test_a_file_becomes_a_report(csv, tmp_path):
    done = lm(csv, "--report", "out.html", "--resamples", 40, "--starts", 16, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "params is 'Model Size'" in done.stdout and "the best size grows as FLOPs^0.5" in done.stdout
    page = (tmp_path / "out.html").read_text()
    assert page.count("<img") >= 5 and "://" not in page.split("<body", 1)[1]  # needs no network
    fit = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert fit["params"] == pytest.approx(made.TRUE, rel=0.5) and fit["runs"] == 45
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"isoflop.svg", "isoflop.png", "contour.png", "frontier.png", "clouds.svg", "parameters.csv"} <= names
    assert len(pd.read_csv(tmp_path / "out" / "runs.csv")) == 45


def test_what_cant_be_read_is_one_line(csv, tmp_path):
    for arguments, words in (
        (["nowhere.csv"], "nowhere.csv"),
        ([csv, "--law", "chinchila"], "did you mean 'chinchilla'"),
        ([csv, "--loss", "val_los"], "val_loss"),
        ([csv, "--law", "moe"], "experts"),
        ([csv, "--column", "experts"], "NAME=HEADING"),
        ([csv, "--law", "moe", "--column", "experts=nothing"], "nothing"),
    ):
        done = lm(*arguments, cwd=tmp_path)
        assert done.returncode == 1 and words in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1


def test_every_law_names_its_columns():
    for law in LAWS.values():
        assert law.columns and type(law).__doc__, law.name
