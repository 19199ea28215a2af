"""The loop: the same run is the same bits, however often it is interrupted."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from lm import data
from lm.config import dumps, replace
from lm.data import Data, Text
from lm.models import Decoder
from lm.nn import MLP, Block, mha
from lm.train import Recording, Run, Training
from lm.train.checkpoint import CheckpointError, Checkpoints
from lm.train.folder import RunError, RunFolder
from lm.train.load import evaluate_run, load_run
from lm.train.lock import RunLocked, lock
from lm.train.loop import Diverged, Machine, train
from lm.train.rows import read

pytestmark = pytest.mark.core

QUIET = Machine(quiet=True)
TIMES = ("seconds", "tokens_per_second", "mfu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of twelve steps that takes milliseconds once it is compiled."""
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    for i in range(40):
        (folder / f"{i}.txt").write_text("".join(rng.choice(list("abcdefgh \n"), size=200)))
    return Run(
        model=Decoder(vocab=256, width=16, layers=2, block=Block(mixer=mha(2), ff=MLP(hidden=32))),
        data=Data(corpus=Text(path=str(folder)), length=32, batch=4, heldout=0.2),
        train=Training(steps=12, ema=0.9),
        record=Recording(every=1, evaluations=1, checkpoint_every=3, keep=2),
    )


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    train(run, folder, QUIET)
    return folder


def arrays(folder: Path) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(load_run(folder).params)]


def rows(folder: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read(folder / "rows.jsonl")]


def assert_same(a: Path, b: Path) -> None:
    """Parameters equal to the bit, and the same rows once each."""
    for x, y in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_array_equal(x, y)
    assert rows(a) == rows(b)


class Kill(BaseException):
    pass


def interrupt_at(monkeypatch, step: int) -> None:
    """Ends the loop by an exception as it reads the metrics of `step`."""
    from lm.train import loop

    report = loop.Trainer._report

    def fail(self, before, metrics, batches):
        if before < step <= before + len(batches[0]):
            raise Kill
        report(self, before, metrics, batches)

    monkeypatch.setattr(loop.Trainer, "_report", fail)


def test_the_same_run_twice_is_the_same_bits(run, undisturbed, tmp_path):
    train(run, tmp_path, QUIET)
    assert_same(tmp_path, undisturbed)


@pytest.mark.parametrize("step", [2, 3, 7, 11, 12])
def test_resumed_equals_uninterrupted(run, undisturbed, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch, pytest.raises(Kill):
        interrupt_at(patch, step)
        train(run, tmp_path, QUIET)
    assert RunFolder(tmp_path).status() == "interrupted"
    train(run, tmp_path, QUIET)
    assert_same(tmp_path, undisturbed)


def test_a_checkpoint_ahead_of_its_rows_is_not_begun_from(run, undisturbed, tmp_path):
    """As a process leaves it that stood still while it was saving, and lost the folder to one that is less far."""
    shutil.copytree(undisturbed, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    (folder.path / "result.json").unlink()
    written = folder.rows.read_text().splitlines(keepends=True)
    folder.rows.write_text("".join(line for line in written if json.loads(line)["step"] <= 10))
    assert Checkpoints(folder.checkpoints).steps() == (9, 12)
    train(run, folder.path, QUIET)
    assert len(folder.starts()) == 2
    assert_same(folder.path, undisturbed)


def test_hidden_weights_begin_as_large_as_is_said(run, undisturbed, tmp_path):
    train(replace(run, {"train.init_scale": 0.5}), tmp_path, QUIET)
    first, usual = rows(tmp_path)[0], rows(undisturbed)[0]
    assert first["parameter_norm"] < 0.95 * usual["parameter_norm"]


def test_steps_of_one_dispatch_are_the_same_steps(run, undisturbed, tmp_path):
    """The run's steps are short, so several are one program; alone each gives the same numbers but for rounding."""
    assert run.steps_at_once > 1
    train(replace(run, {"train.execution.steps_at_once": 1}), tmp_path, QUIET)
    for alone, together in zip(rows(tmp_path), rows(undisturbed), strict=True):
        assert alone.pop("split") == together.pop("split")
        assert alone == pytest.approx(together, rel=1e-4)


def child(run: Run, folder: Path) -> subprocess.Popen:
    """The same training in a process of its own."""
    config = folder.with_suffix(".json")
    config.write_text(dumps(run))
    code = (
        "import sys, pathlib; from lm.config import loads; import lm.train; from lm.train.loop import *;"
        "machine = Machine(quiet=True)\n"
        "try: train(loads(pathlib.Path(sys.argv[1]).read_text()), sys.argv[2], machine)\n"
        "except Stopped as stopped: print(stopped)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(config), str(folder)], stdout=subprocess.PIPE, text=True)


def wait_for_rows(folder: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while len(read(folder / "rows.jsonl")) < count:
        assert process.poll() is None, "the process ended before it was disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def long_run(run):
    """Long enough to be met in the middle by a signal."""
    return replace(run, {"train.steps": 400, "record.checkpoint_every": 25})


def test_killed_and_terminated_then_resumed_equals_uninterrupted(long_run, tmp_path):
    """kill -9 in the middle, then SIGTERM in the middle, then to the end, in the child's own process each time."""
    folder, whole = tmp_path / "disturbed", tmp_path / "whole"
    first = child(long_run, folder)
    wait_for_rows(folder, 60, first)
    first.kill()
    first.wait()
    assert RunFolder(folder).status() == "interrupted"

    second = child(long_run, folder)
    wait_for_rows(folder, 120, second)
    second.send_signal(signal.SIGTERM)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert "saved" in said and RunFolder(folder).status() == "interrupted"

    train(long_run, folder, QUIET)
    train(long_run, whole, QUIET)
    assert_same(folder, whole)


def test_a_finished_run_is_not_run_again(run, undisturbed):
    before = (undisturbed / "rows.jsonl").read_bytes()
    assert train(run, undisturbed, QUIET) == RunFolder(undisturbed).result()
    assert (undisturbed / "rows.jsonl").read_bytes() == before


def test_the_result_is_the_last_evaluation(run, undisturbed):
    result = RunFolder(undisturbed).result()
    last = [row for row in read(undisturbed / "rows.jsonl") if row["split"] == "heldout"][-1]
    assert last["step"] == 12 and result["heldout_loss"] == last["loss"]
    # every held-out byte is predicted once, and each document's end; bits are of the bytes alone
    assert result["heldout_bpb"] > result["heldout_loss"] / np.log(2)
    assert evaluate_run(load_run(undisturbed))["loss"] == pytest.approx(last["loss"], rel=1e-6)


def test_a_diverged_run_stops_with_its_last_good_checkpoint(run, tmp_path):
    hot = replace(run, {"train.optimizer.learning_rate": 1e30, "train.schedule.warmup": 0})
    with pytest.raises(Diverged, match=r"step \d+ \(batch \d+\).*checkpoint.*learning_rate"):
        train(hot, tmp_path, QUIET)
    assert RunFolder(tmp_path).status() == "failed"
    assert all(np.isfinite(row["loss"]) for row in read(tmp_path / "rows.jsonl"))


def test_a_second_process_is_refused(run, tmp_path):
    with lock(tmp_path), pytest.raises(RunLocked):
        train(run, tmp_path, QUIET)


def test_another_run_in_the_folder_is_refused(run, undisturbed):
    other = replace(run, {"train.optimizer.learning_rate": 0.5})
    with pytest.raises(RunError, match=r"another run \(train.optimizer.learning_rate is 0.001 there, 0.5 here\)"):
        train(other, undisturbed, QUIET)
    assert not (undisturbed / "failure.json").exists()


def test_changed_data_is_refused(run, undisturbed, tmp_path):
    """The same run on a text that has changed since: neither its result nor its weights stand for it any more."""
    folder = Path(run.data.corpus.path)
    before = (folder / "0.txt").read_text()
    try:
        (folder / "0.txt").write_text(before + "more")
        with pytest.raises(RunError, match="the data has changed"):
            train(run, undisturbed, QUIET)
        with pytest.raises(RunError, match="the data has changed"):
            evaluate_run(load_run(undisturbed))
    finally:
        (folder / "0.txt").write_text(before)


def test_a_running_run_says_so(run, tmp_path):
    with lock(tmp_path):
        assert RunFolder(tmp_path).status() == "running"
    assert RunFolder(tmp_path).status() == "new"


def test_an_unforeseen_error_leaves_its_traceback(run, tmp_path, monkeypatch):
    from lm.train import loop

    def broken(*_):
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(loop.Trainer, "_evaluate", broken)
    with pytest.raises(ZeroDivisionError):
        train(run, tmp_path, QUIET)
    home = RunFolder(tmp_path)
    assert home.status() == "failed" and "surprise" in home.failure()
    assert "in broken" in (tmp_path / "traceback.txt").read_text()


def test_a_checkpoint_cut_short_is_said_and_never_started_over(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Kill):
        interrupt_at(patch, 8)
        train(run, tmp_path, QUIET)
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    before = (tmp_path / "rows.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="damaged"):
        train(run, tmp_path, QUIET)
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_the_folder_tells_where_a_run_came_from(run, undisturbed):
    assert RunFolder(undisturbed).config() == run
    facts = json.loads((undisturbed / "provenance.json").read_text())
    assert facts["data"] == data.fingerprint(run.data)
    assert len(facts["starts"]) == 1 and facts["starts"][0]["packages"]["jax"] == jax.__version__


def test_ids_depend_on_content_alone(run):
    assert run.id("data") == dataclasses.replace(run).id("data")
    assert run.id("data") != run.id("other data")
    assert run.id("data") != replace(run, {"train.optimizer.b2": 0.9}).id("data")
