"""The command `lm`, end to end in a temporary folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lm import cli
from lm.commands import sweep
from lm.train import hosts

EXPERIMENT = '''
"""Which is better on nonsense?

More words.
"""
from lm.data import Data, Text
from lm.models import Decoder
from lm.nn import MLP, Block, mha, mqa
from lm.sweep import Ablation
from lm.train import Recording, Run, Training

experiment = Ablation(
    base=Run(
        model=Decoder(vocab=256, width=16, layers=2, block=Block(mixer=mha(4), ff=MLP(hidden=32))),
        data=Data(corpus=Text(path="text"), length=32, batch=4, heldout=0.2),
        train=Training(steps=4),
        record=Recording(every=2),
    ),
    at="model.block.mixer",
    arms={"MHA": mha(4), "MQA": mqa(4)},
    match="params",
    multiple=2,
    seeds=2,
    decode_contexts=(8, 16),
)
presets = {"smoke": {"base.train.steps": 2}}
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an experiment that has been run."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "text").mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        (folder / "text" / f"{i}.txt").write_text("".join(rng.choice(list("abcdefgh \n"), size=200)))
    (folder / "nonsense.py").write_text(EXPERIMENT)
    return folder


@pytest.fixture
def lm(folder, monkeypatch, capsys):
    """Runs the command in the folder: lm("sweep", "plan", ...) -> (exit code, what it printed, its errors)."""
    monkeypatch.chdir(folder)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


@pytest.fixture
def done(lm):
    code, out, err = lm("sweep", "run", "nonsense.py", "--quiet")
    assert code == 0, err
    return out


def refused(answer: tuple[int, str, str], *words: str) -> None:
    """An error as it should be: exit code, one line, no traceback, and the words that help."""
    code, _, err = answer
    assert code == 1 and err.startswith("lm: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, f"'{word}' isn't in: {err}"


def test_plan_status_run_report(lm, folder):
    code, out, _ = lm("sweep", "plan", "nonsense.py", "--preset", "smoke")
    assert code == 0 and "4 runs, 4 to do in 2 groups" in out and "Which is better on nonsense?" in out
    code, out, _ = lm("sweep", "run", "nonsense.py", "--preset", "smoke", "--quiet")
    assert code == 0 and "4 runs done now, 0 before" in out and "MQA" in out
    report = folder / "results" / "nonsense-smoke"
    page = (report / "report.html").read_text()
    assert "<img" in page or "<svg" in page
    assert not re.search(r'(src|href)="https?:', page), "the page must open without network"
    assert list(report.glob("*.png")) and list(report.glob("*.csv"))
    code, out, _ = lm("sweep", "run", "nonsense.py", "--preset", "smoke", "--quiet")
    assert code == 0 and "0 runs done now, 4 before" in out
    code, out, _ = lm("sweep", "status", "nonsense.py", "--preset", "smoke")
    assert code == 0 and "4 done" in out
    code, out, _ = lm("sweep", "plan", "nonsense.py")
    assert "4 runs, 4 to do" in out, "the preset's runs are others"


def test_train_eval_and_generate(lm, tmp_path):
    code, out, err = lm("train", "nonsense.py", "train.steps=3", "--out", tmp_path / "run", "--quiet")
    assert code == 0 and "held-out loss" in out, err
    code, out, _ = lm("eval", tmp_path / "run")
    assert code == 0 and "bits/byte" in out
    greedy = ("generate", tmp_path / "run", "abc", "--new-tokens", "5")
    assert lm(*greedy) == lm(*greedy, "--stream") == lm(*greedy)
    code, out, _ = lm(*greedy, "--temperature", "1", "--top-k", "5", "--top-p", "0.9", "--seed", "3")
    assert code == 0 and out.startswith("abc")
    refused(lm(*greedy, "--top-k", "5"), "--temperature")


def test_budget_watch_and_cancel(lm, folder):
    refused(lm("sweep", "plan", "nonsense.py", "--device", "H100", "--budget", "10"), "budget", "nothing was written")
    refused(lm("sweep", "plan", "nonsense.py", "--device", "Abacus"), "Abacus", "H100")
    code, out, _ = lm("sweep", "plan", "nonsense.py", "--device", "H100", "--budget", "1h")
    assert code == 0 and "40% of its published" in out
    assert lm("sweep", "run", "nonsense.py", "--quiet")[0] == 0
    code, out, _ = lm("sweep", "status", "nonsense.py", "--watch")
    assert code == 0 and "nonsense: 4 done; best" in out
    code, out, _ = lm("sweep", "status", folder / "results" / "nonsense")
    assert code == 0 and "4 done" in out
    code, out, _ = lm("sweep", "cancel", "nonsense.py")
    assert code == 0 and "asked 0 workers" in out
    refused(lm("sweep", "submit", "nonsense.py", "--on", "Cluster"), "--on", "Cluster")
    refused(lm("sweep", "run", "nonsense.py", "--on", "SkyPilot(infra='gcp', results=None)"), "lm sweep submit")


def test_failed_runs_wait_for_retry_and_orphans_are_pruned(lm, folder):
    wild = ("nonsense.py", "seeds=1", "base.train.optimizer.learning_rate=1e30", "base.train.clip=1e30")
    code, out, _ = lm("sweep", "run", *wild[:1], "--quiet")
    assert code == 0
    code, out, err = lm("sweep", "run", *wild, "--quiet")
    assert code == 1 and "2 failed" in out + err
    code, out, err = lm("sweep", "run", *wild, "--quiet")
    assert code == 1 and "0 runs done now" in out + err  # it would be the same bits again
    refused(lm("sweep", "retry", *wild, "--arm", "GQA"), "no arm 'GQA'", "MHA, MQA")
    code, out, _ = lm("sweep", "retry", *wild, "--arm", "MQA")
    assert code == 0 and out.count("will be tried again") == 1
    code, out, _ = lm("sweep", "status", *wild)
    assert "1 failed, 1 interrupted" in out or "1 failed, 1 new" in out

    (manifest,) = [p for p in (folder / "results").glob("nonsense-*/manifest.jsonl") if "1e+30" in p.read_text()]
    before = set((folder / "results" / "runs").iterdir())
    manifest.unlink()
    code, out, _ = lm("sweep", "prune")
    assert code == 0 and "--yes deletes them" in out and set((folder / "results" / "runs").iterdir()) == before
    code, out, _ = lm("sweep", "prune", "--yes")
    left = set((folder / "results" / "runs").iterdir())
    assert code == 0 and len(before - left) >= 2 and left
    code, out, _ = lm("sweep", "status", "nonsense.py")
    assert "4 done" in out


def test_results_and_verify(lm, folder):
    assert lm("sweep", "run", "nonsense.py", "--quiet")[0] == 0
    sql = "select arm, count(*) as n from runs where experiment = 'nonsense' group by arm order by arm"
    code, out, _ = lm("results", sql)
    assert code == 0 and re.search(r"MHA\s+2\s+MQA\s+2", out)
    run = next((folder / "results" / "runs").glob("*/result.json")).parent
    code, out, _ = lm("verify", run, "--steps", "4")
    assert code == 0 and "equal to the bit" in out
    code, out, err = lm("train", run, "--out", folder / "again", "--quiet")
    assert code == 0, err
    again, first = ((folder_ / "result.json").read_text() for folder_ in (folder / "again", run))
    assert again.split("tokens_per")[0] == first.split("tokens_per")[0]


def test_config_and_cost(lm):
    code, out, _ = lm("config", "nonsense.py", "seeds=7")
    assert code == 0 and '"seeds": 7' in out
    code, out, _ = lm("config", "nonsense.py", "--diff", "nonsense.py")
    assert code == 0 and out == ""
    code, out, _ = lm("cost", "nonsense.py")
    assert code == 0 and "MQA" in out and "memory" in out


def test_doctor(lm):
    code, out, _ = lm("doctor")
    assert "jax" in out and "devices" in out and "free" in out
    assert code == (1 if "PROBLEM" in out else 0)


def test_bad_input_is_one_line(lm, folder, tmp_path):
    refused(lm("sweep", "plan", "nonsense.py", "base.train.step=3"), "did you mean 'steps'")
    refused(lm("sweep", "plan", "nonsense.py", "base.model.block.mixer.kv_heads=3"), "kv_heads=3 must divide heads=4")
    refused(lm("sweep", "plan", "nonsense.py", "--preset", "smok"), "smoke")
    refused(lm("sweep", "plan", "nowhere.py"), "nowhere.py")
    refused(lm("sweep", "report", "nonsense.py", "seeds=3", "--results", tmp_path), "lm sweep run")
    refused(lm("generate", tmp_path, "abc"), "config.json")
    refused(lm("sweep", "run", "nonsense.py", "--mesh", "data=99"), "99 devices")
    refused(lm("sweep", "run", "nonsense.py", "--mesh", "dat=1"), "did you mean 'data'")
    for command in ("run", "submit"):
        refused(lm("sweep", command, "nonsense.py", "--on", "Local", "--distributed"), "leave --distributed out")
    (folder / "raises.py").write_text("x = 1\ny = x / 0\n")
    refused(lm("sweep", "plan", "raises.py"), "raises.py:2", "ZeroDivisionError")
    (folder / "typo.py").write_text("from lm.nn import Attention\nAttention(heads=8, kv_head=2)\n")
    refused(lm("sweep", "plan", "typo.py"), "typo.py:2", "did you mean 'kv_heads'")
    (folder / "none.py").write_text("x = 1\n")
    refused(lm("sweep", "plan", "none.py"), "defines no experiment")
    refused(lm("sweep", "run", "nonsense.py", "base.data.corpus.path=nothing"), "nothing")
    refused(lm("train", "nonsense.py", "data.batch=100000", "--quiet"), "batch=100000")
    (folder / "latin").mkdir(exist_ok=True)
    (folder / "latin" / "a.txt").write_bytes(b"caf\xe9 " * 100)
    refused(lm("train", "nonsense.py", "data.corpus.path=latin", "--quiet"), "UTF-8", "a.txt")
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "empty" / "a.txt").write_text("")
    refused(lm("train", "nonsense.py", "data.corpus.path=empty", "--quiet"), "empty")


@pytest.mark.parametrize("first", [True, False])
def test_of_processes_that_do_a_sweep_together_the_first_writes_and_speaks(lm, tmp_path, monkeypatch, first):
    joined, trained = [], []
    monkeypatch.setattr(hosts, "join", joined.append)
    monkeypatch.setattr(hosts, "several", lambda: True)
    monkeypatch.setattr(hosts, "first", lambda: first)
    monkeypatch.setattr(hosts, "on_first", lambda act: act() if first else None)
    monkeypatch.setattr(sweep, "_report", lambda *_: print("report"))
    monkeypatch.setattr(sweep.RunSweep, "_here", lambda self, entries, folder, say: trained.append(say("train")))
    code, out, _ = lm("sweep", "run", "nonsense.py", "--distributed", "--results", str(tmp_path / "results"))
    assert code == 1 and joined == [True] and len(trained) == 1  # nothing is done yet
    assert out.splitlines() == (["nonsense: Which is better on nonsense?", "train", "report"] if first else [])
    assert (tmp_path / "results" / "nonsense" / "manifest.jsonl").exists() == first


def test_debug_shows_the_traceback(folder, monkeypatch):
    from lm.errors import UserError

    monkeypatch.chdir(folder)
    with pytest.raises(UserError):
        cli.main(["sweep", "plan", "nowhere.py", "--debug"])


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/proc/sys"), reason="needs /proc as a read-only place")
def test_a_place_that_cannot_be_written(lm):
    refused(lm("sweep", "run", "nonsense.py", "--quiet", "--results", "/proc/results"), "/proc/results")


def test_help_imports_nothing_heavy():
    """`lm --help` answers without JAX, pandas or matplotlib."""
    code = (
        "import sys\nfrom lm import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('jax', 'flax', 'numpy', 'pandas', 'matplotlib', 'grain') if m in sys.modules])"
    )
    root = Path(cli.__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True).stdout
    assert "sweep" in out and out.strip().endswith("[]")


def test_the_reported_speed_and_loss_are_those_of_the_runs(lm, done, folder):
    """The page's numbers are in its CSVs, and those are the runs' own."""
    import json

    import pandas as pd

    table = pd.read_csv(folder / "results" / "nonsense" / "runs.csv")
    assert len(table) == 4
    for row in table.to_dict("records"):
        result = json.loads((folder / "results" / "runs" / row["id"] / "result.json").read_text())
        assert row["heldout_loss"] == pytest.approx(result["heldout_loss"], rel=1e-12)
