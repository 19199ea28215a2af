"""Four real processes that train one run: killed, stopped, continued by another number of them, damaged.

The tests go on from one another's folder, in order: each start of four processes costs what a test may.
"""

import os
import random
import shutil
import signal
import time
from typing import Any

import numpy as np
import pytest

from lm.config import dumps, replace
from lm.data import Data, Text
from lm.evals import Positions
from lm.models import Decoder
from lm.nn import MLP, Block, mha
from lm.sharding import layout
from lm.train import Constant, Recording, Run, Training
from lm.train.checkpoint import Checkpoints
from lm.train.folder import RunFolder
from lm.train.load import load_run
from lm.train.loop import Machine, train
from lm.train.optimizers import AdamW
from lm.train.signals import STOPPED
from lm.train.watch_peers import LOST
from tests.multihost.helper import free_port, processes, said, start, trained, wait_for_rows

STEPS = 60
EVERY = 5  # steps from checkpoint to checkpoint
HUGE = 1e17  # a learning rate: the weights' squares are no float32 any more after a few steps
PAUSE = 0.05  # seconds a step, so that it can be met in the middle


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    for i in range(40):
        (folder / f"{i}.txt").write_text("".join(rng.choice(list("abcdefgh \n"), size=200)))
    return Run(
        model=Decoder(vocab=256, width=16, layers=1, block=Block(mixer=mha(2), ff=MLP(hidden=32))),
        data=Data(corpus=Text(path=str(folder)), length=16, batch=4, heldout=0.2),
        train=Training(steps=STEPS, optimizer=AdamW(learning_rate=1e-3)),
        record=Recording(every=1, evaluations=0, checkpoint_every=EVERY, keep=3),
    )


@pytest.fixture(scope="module")
def config(run, tmp_path_factory):
    """A folder that `lm train` takes the run from."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.json").write_text(dumps(run))
    return folder


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory):
    """The run as one device does it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(run, folder, Machine(quiet=True))
    return folder


@pytest.fixture(scope="module")
def undisturbed(alone) -> dict[int, float]:
    """Its losses, by step."""
    return trained(alone)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run that is disturbed."""
    return tmp_path_factory.mktemp("runs") / "disturbed"


def assert_whole(run: Run, folder) -> tuple[int, ...]:
    """Every checkpoint that is there can be read whole; their steps."""
    wanted = load_run(folder).program.abstract_state()
    with Checkpoints(RunFolder(folder).checkpoints, keep=None) as checkpoints:
        steps = checkpoints.steps()
        for step in steps:
            assert int(checkpoints.restore(wanted, step).step) == step
    return steps


def assert_same_curve(folder, undisturbed: dict[int, float], until: int) -> None:
    losses = trained(folder)
    assert sorted(losses) == list(range(1, until + 1))
    assert losses == pytest.approx({s: undisturbed[s] for s in losses}, rel=0, abs=1e-5)


def test_one_of_four_is_killed_and_the_others_say_which(run, config, folder, undisturbed):
    step, victim = random.randrange(EVERY + 2, STEPS // 3), random.randrange(4)
    with processes(4, config, folder, "data=4", [PAUSE]) as started:
        wait_for_rows(folder, step, started)
        started[victim].kill()
        began = time.monotonic()
        words = {i: said(process) for i, process in enumerate(started) if i != victim}
        took = time.monotonic() - began
    assert took < 30, "the others didn't notice it before the time-out"
    for i, text in words.items():
        lines = [line for line in text.splitlines() if line.startswith(f"lm: process {victim} of 4 (")]
        assert len(lines) == 1 and f"pid {started[victim].pid}) is lost" in lines[0], (victim, step, i, text)
        if victim:  # else JAX may be quicker to abort: its service was in process 0
            assert started[i].returncode == LOST, (victim, step, i, text)
        assert started[i].returncode != 0
    assert RunFolder(folder).status() == "interrupted"
    assert assert_whole(run, folder)[-1] >= step - step % EVERY - EVERY
    assert_same_curve(folder, undisturbed, len(trained(folder)))


def test_two_go_on_and_one_is_told_to_stop(run, config, folder, undisturbed):
    at = len(trained(folder)) + 2 * EVERY
    with processes(2, config, folder, "fsdp=2", [PAUSE]) as started:
        wait_for_rows(folder, at, started)
        started[1].send_signal(signal.SIGTERM)
        words = [said(process) for process in started]
    assert [process.returncode for process in started] == [STOPPED, STOPPED], words
    steps = assert_whole(run, folder)
    assert all(f"stopped at step {steps[-1]} of {STEPS}, saved" in text for text in words), words
    assert at <= steps[-1] < STEPS
    assert_same_curve(folder, undisturbed, steps[-1])


def test_a_part_of_a_checkpoint_is_missing(run, config, folder, undisturbed, tmp_path):
    """It is named by both processes, nothing is changed, and what is older is used once the damaged one is deleted."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    newest = max((copy / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    part = max(newest.glob("default/ocdbt.process_1/d/*"), key=lambda path: path.stat().st_size)
    part.unlink()
    before = (copy / "rows.jsonl").read_bytes()
    with processes(2, config, copy, "data=2") as started:
        words = [said(process) for process in started]
    assert [process.returncode for process in started] == [1, 1], words
    assert f"{part.relative_to(newest)} is missing" in words[0] and f"delete {newest}" in words[0]
    assert (copy / "rows.jsonl").read_bytes() == before
    shutil.rmtree(newest)
    train(run, copy, Machine(quiet=True, layout=layout("data=4")))
    assert len(RunFolder(copy).starts()) == 4
    assert_same_curve(copy, undisturbed, STEPS)


def test_four_end_it_on_another_mesh_and_the_slow_one_is_named(run, config, folder, alone, undisturbed):
    """Rows are split in two and the model in two, so two processes each load the same rows."""
    with processes(4, config, folder, "fsdp=2,tensor=2", [0.0, 0.0, 0.0, 0.3]) as started:
        words = [said(process) for process in started]
    assert [process.returncode for process in started] == [0] * 4, words
    assert_same_curve(folder, undisturbed, STEPS)
    found, expected = (RunFolder(path).result()["heldout_loss"] for path in (folder, alone))
    assert found == pytest.approx(expected, rel=0, abs=1e-5)  # each process evaluates its own rows
    named = [line for line in words[0].splitlines() if "holds the others up" in line]
    assert any(line.startswith("process 3 of 4 (") for line in named), words[0]
    assert not any("holds the others up" in text for text in words[1:])


def test_the_disk_of_the_first_is_full_and_the_other_repeats_it(run, tmp_path):
    """Between two measures that both compute: the other isn't left in the second one."""
    looks = (Positions(examples=8), Positions(name="again", examples=8))
    config = written(replace(run, {"record.measures": looks, "record.evaluations": 4}), tmp_path)
    limits: Any = {"LM_AGREE_TIMEOUT": "30", "LM_PEER_TIMEOUT": "120"}
    with processes(2, config, tmp_path / "run", "fsdp=2", FULL="details.jsonl", **limits) as started:
        words = [said(process) for process in started]
    why = f"can't write a row to {tmp_path / 'run' / 'details.jsonl'}: the disk is full"
    assert [process.returncode for process in started] == [1, LOST], words
    assert f"lm: {why}" in words[0].splitlines()
    told = next(line for line in words[1].splitlines() if line.startswith("lm: process 0 of 2 ("))
    assert told.endswith(f"pid {started[0].pid}) couldn't go on: {why}")
    assert "Traceback" not in words[0] + words[1]
    assert RunFolder(tmp_path / "run").failure() == why


def test_a_loss_that_is_no_number_stops_both_before_it_is_saved(run, tmp_path):
    huge = {"train.optimizer.learning_rate": HUGE, "train.schedule": Constant(), "record.checkpoint_every": 1}
    config = written(replace(run, huge), tmp_path)
    with processes(2, config, tmp_path / "run", "data=2") as started:
        words = [said(process) for process in started]
    assert [process.returncode for process in started] == [1, 1], words
    lines = [next(line for line in text.splitlines() if line.startswith("lm: ")) for text in words]
    step, last = (
        len(trained(tmp_path / "run")) + 1,
        f"the last good checkpoint is step {len(trained(tmp_path / 'run'))}",
    )
    assert step > 1 and all(f" at step {step} (batch {step - 1}); {last}; lower " in line for line in lines), words
    assert assert_whole(run, tmp_path / "run") == tuple(range(1, step))[-run.record.keep :]
    assert RunFolder(tmp_path / "run").diverged()


def written(run: Run, folder):
    """A folder that `lm train` takes the run from."""
    (folder / "config").mkdir()
    (folder / "config" / "config.json").write_text(dumps(run))
    return folder / "config"


def test_processes_that_do_not_find_one_another_say_so(config, tmp_path):
    port = free_port()
    command = ["train", str(config), "--out", str(tmp_path / "run"), "--quiet"]
    first = start(0, 2, port, *command, LM_JOIN_TIMEOUT="2")
    second = start(1, 2, free_port(), *command, LM_JOIN_TIMEOUT="2")
    assert f"process 0 has the coordinator at 127.0.0.1:{port}, but not all processes came within 2 s" in said(first)
    assert "process 1 can't reach the coordinator (process 0) at 127.0.0.1:" in said(second)
    assert [first.returncode, second.returncode] == [1, 1]
    assert not os.path.exists(tmp_path / "run")
