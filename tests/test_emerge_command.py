"""lm emerge: from a table of published scores to a report."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lm import cli

VENDORED = Path(__file__).parents[1] / "experiments" / "emergence" / "published.csv"
Answer = tuple[int, str, str]


@pytest.fixture
def lm(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Answer:
        with pytest.raises(SystemExit) as end:
            cli.main(["emerge", "plot", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def test_published_scores_become_a_report(lm: Callable[..., Answer], tmp_path: Path) -> None:
    tasks = ["--tasks", "ipa_transliterate", "arithmetic_3da", "--examples", "arithmetic_3da=2000", "--resamples", 40]
    code, out, err = lm(VENDORED, *tasks)
    assert code == 0, err
    order = [
        re.search(rf"{name} at 10\^(\d+\.\d+) \[", " ".join(out.split())) for name in ("3da", "bleu", "exact_match")
    ]
    assert [found and found.group(1) for found in order] == ["22.54", "23.43", "23.90"]
    said = " ".join(out.split())
    assert "by bleu the same answers are half-way up 0.41 decades earlier than by exact_match" in said
    assert "Equal training FLOPs don't make equal scores: on arithmetic_3da facebook/opt-30b" in said
    page, folder = tmp_path / "emergence" / "published.html", tmp_path / "emergence" / "published"
    text = page.read_text()
    assert text.count("<img") == 1 and "://" not in text.split("<body", 1)[1]  # needs no network
    assert {path.name for path in folder.iterdir()} == {
        "scores.png", "scores.svg", "midpoints.csv", "spreads.csv", "values.csv",
    }  # fmt: skip
    table = pd.read_csv(folder / "midpoints.csv").set_index("name")
    assert table.loc["arithmetic_3da", "least"] == pytest.approx(0.0019, abs=1e-4)
    assert pd.isna(table.loc["ipa_transliterate bleu", "least"]) and len(table) == 3
    assert len(pd.read_csv(folder / "values.csv")) == 756


def test_columns_and_sizes_are_as_they_are_told(lm: Callable[..., Answer], tmp_path: Path) -> None:
    rows = [f"m{i},L{i % 6},{10 ** (7 + i / 4):g},{min(max((i - 5) / 20, 0), 1):g}" for i in range(24)]
    (tmp_path / "own.csv").write_text("\n".join(["Name,Lab,Size,sums_acc", *rows]))
    told = ["--column", "model=Name", "family=Lab", "params=Size", "--x", "params", "--resamples", 30]
    code, out, err = lm("own.csv", *told, "--chance", "sums=0.1", "--report", "page.html")
    assert code == 0, err
    assert "sums at 10^" in out and "parameters (95%" in " ".join(out.split())
    assert pd.read_csv("page/midpoints.csv")["chance"].tolist() == [0.1] and (tmp_path / "page.html").exists()


def test_what_cant_be_done_is_one_line(lm: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "bare.csv").write_text("model,family,flops\na,A,1e20\n")
    (tmp_path / "alone.csv").write_text("model,flops,sums_acc\na,1e20,0.5\n")
    (tmp_path / "folder").mkdir()
    for arguments, words in (
        (["nowhere.csv"], "there is no file nowhere.csv"),
        (["bare.csv"], "no column of scores"),
        (["alone.csv"], "--column family=Lab"),
        (["alone.csv", "--column", "family=Lab"], "Lab"),
        (["folder"], "no score file of BIG-bench"),
        (["folder", "--column", "family=Lab"], "--column is for CSV files"),
        ([VENDORED, "--tasks", "arithmetic_3d_a"], "did you mean 'arithmetic_3da'"),
        ([VENDORED, "--examples", "arithmetic=2000"], "examples:"),
        ([VENDORED, "--examples", "arithmetic_3da=many"], "--examples arithmetic_3da=many: say NAME=VALUE"),
        ([VENDORED, "--chance", "parsinlu_qa"], "e.g. parsinlu_qa=0.25"),
    ):
        code, _, err = lm(*arguments)
        assert code == 1 and err.startswith("lm: ") and words in err, (arguments, err)
        assert len(err.strip().splitlines()) == 1
