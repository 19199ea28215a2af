"""Runs trained as one program: each as if it were alone, whatever becomes of the others."""

import logging

import jax
import numpy as np
import pytest

from lm.config import replace
from lm.data import Data, Text
from lm.models import Decoder
from lm.nn import MLP, Block, mha
from lm.sharding import layout
from lm.train import Recording, Run, Training, group
from lm.train.fleet import Fleet
from lm.train.folder import RunFolder
from lm.train.group import Member, train_together
from lm.train.lane import Machine
from lm.train.load import load_run
from lm.train.loop import Diverged, Pruned, Stopped, train
from lm.train.rows import read

TIMES = {"seconds", "tokens_per_second", "mfu"}
LR, DECAY, CLIP = "train.optimizer.learning_rate", "train.optimizer.weight_decay", "train.clip"


def quiet(devices: int = 1) -> Machine:
    return Machine(quiet=True, layout=layout(f"data={devices}"))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    for i in range(40):
        (folder / f"{i}.txt").write_text("".join(rng.choice(list("abcdefgh \n"), size=200)))
    return Run(
        model=Decoder(vocab=256, width=16, layers=2, block=Block(mixer=mha(2), ff=MLP(hidden=32))),
        data=Data(corpus=Text(path=str(folder)), length=32, batch=4, heldout=0.2),
        train=Training(steps=12),
        record=Recording(every=1, checkpoint_every=3, keep=2),
    )


@pytest.fixture(scope="module")
def runs(base) -> list[Run]:
    points = [{}, {LR: 3e-3, "seed": 1}, {DECAY: 0.3, "data.seed": 2}, {CLIP: 0.1, "train.schedule.final": 0.5}]
    return [replace(base, point) for point in points]


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory):
    """The folder of each run, trained by itself."""
    folder = tmp_path_factory.mktemp("alone")
    for i, run in enumerate(runs):
        train(run, folder / str(i), quiet())
    return [folder / str(i) for i in range(len(runs))]


def members(runs, folder) -> list[Member]:
    return [Member(run, folder / str(i)) for i, run in enumerate(runs)]


def arrays(folder):
    return [np.asarray(x) for x in jax.tree.leaves(load_run(folder).params)]


def assert_close(folder, other, rtol: float = 2e-4) -> None:
    """The same rows, once each, and the same parameters, but for rounding."""
    a, b = (read(f / "rows.jsonl") for f in (folder, other))
    assert [(r["step"], r["split"]) for r in a] == [(r["step"], r["split"]) for r in b]
    for x, y in zip(a, b, strict=True):
        assert {k: v for k, v in x.items() if k not in {*TIMES, "split"}} == pytest.approx(
            {k: v for k, v in y.items() if k not in {*TIMES, "split"}}, rel=rtol
        )
    for x, y in zip(arrays(folder), arrays(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=2e-5)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_in_a_group_as_alone(runs, alone, tmp_path, devices):
    """On 2 devices two runs each; on 8 with half of them idle."""
    results = train_together(members(runs, tmp_path), quiet(devices))
    for i, result in enumerate(results):
        assert isinstance(result, dict), result
        assert RunFolder(tmp_path / str(i)).result() == result
        assert_close(tmp_path / str(i), alone[i])
    assert train_together(members(runs, tmp_path), quiet()) == results  # nothing is done twice


def test_only_numbers_the_program_takes_as_inputs_may_differ(base):
    same = {base.group("x"), *(replace(base, {path: 0.5}).group("x") for path in (LR, DECAY, CLIP))}
    same |= {replace(base, {"train.init_scale": 0.5}).group("x")}
    same |= {replace(base, {"seed": 3, "data.seed": 4, "train.schedule.warmup": 2}).group("x")}
    assert len(same) == 1
    for point in ({"train.steps": 13}, {"model.width": 32}, {"data.batch": 8}, {CLIP: None}, {"record.every": 2}):
        assert replace(base, point).group("x") not in same
    assert base.group("y") not in same


def test_a_diverging_run_hurts_nobody(runs, tmp_path):
    wild = [*runs[:2], replace(runs[2], {LR: 1e30, CLIP: 1e30}), runs[3]]
    found = train_together(members(wild, tmp_path / "wild"), quiet())
    assert isinstance(found[2], Diverged)
    home = RunFolder(tmp_path / "wild" / "2")
    assert home.status() == "failed" and home.failed_for_good()
    train_together(members(runs, tmp_path / "calm"), quiet())
    for i in (0, 1, 3):
        for x, y in zip(arrays(tmp_path / "wild" / str(i)), arrays(tmp_path / "calm" / str(i)), strict=True):
            np.testing.assert_array_equal(x, y)


class Kill(BaseException):
    pass


def test_killed_and_continued_in_groups_and_alone(runs, tmp_path, monkeypatch):
    """Killed while the checkpoints of a step are being written: some runs have it, some are a step behind."""
    train_together(members(runs, tmp_path / "calm"), quiet())
    from lm.train.lane import Lane

    save = Lane.save

    def kill(self, step, state):
        if step == 6 and self.home.path.name == "2":
            raise Kill
        save(self, step, state)

    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(Lane, "save", kill)
        train_together(members(runs, tmp_path / "hurt"), quiet())
    train(runs[1], tmp_path / "hurt" / "1", quiet())
    assert all(isinstance(r, dict) for r in train_together(members(runs, tmp_path / "hurt"), quiet()))
    for i in range(len(runs)):
        assert_close(tmp_path / "hurt" / str(i), tmp_path / "calm" / str(i))


def test_what_doesnt_fit_the_memory_is_halved(runs, alone, tmp_path, monkeypatch, caplog):
    advance, sizes = Fleet.advance, []

    def small(self, state, batches):
        sizes.append(self.size)
        if self.size > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory while trying to allocate")
        return advance(self, state, batches)

    monkeypatch.setattr(Fleet, "advance", small)
    with caplog.at_level(logging.WARNING, logger="lm.train"):
        results = train_together(members(runs, tmp_path), quiet())
    assert "4 runs together don't fit the memory; going on with 2" in caplog.text
    assert sizes[0] == 4 and set(sizes[1:]) == {2}
    for i, result in enumerate(results):
        assert isinstance(result, dict), result
        assert_close(tmp_path / str(i), alone[i])


def test_the_group_is_as_large_as_memory_allows(runs, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(group, "_train", lambda lanes, machine, stop: asked.append(len(lanes)))
    needed = Fleet(runs[:2], layout()).memory()
    monkeypatch.setattr(group, "free_memory", lambda device: 1.01 * needed / group.ROOM)
    for lane_home in members(runs, tmp_path):
        lane_home.folder.mkdir()
    with pytest.raises(FileNotFoundError):  # nothing was trained, so there is no result to give
        train_together(members(runs, tmp_path), quiet())
    assert asked == [2, 2]


def test_a_judge_stops_what_isnt_worth_more(runs, tmp_path):
    machine = Machine(quiet=True, judge=lambda step, loss: step >= 4)
    with pytest.raises(Pruned, match="pruned at step 4 of 12"):
        train(runs[0], tmp_path, machine)
    assert RunFolder(tmp_path).status() == "interrupted"
    train(runs[0], tmp_path, quiet())
    assert RunFolder(tmp_path).status() == "done"


def test_a_request_to_stop_saves_all(runs, tmp_path, monkeypatch):
    from lm.train.loop import Trainer

    train_together(members(runs, tmp_path / "calm"), quiet())
    report = Trainer._report

    def ask(self, before, metrics, batches):
        report(self, before, metrics, batches)
        if before >= 3:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Trainer, "_report", ask)
        train_together(members(runs, tmp_path / "hurt"), quiet())
    assert {RunFolder(tmp_path / "hurt" / str(i)).status() for i in range(4)} == {"interrupted"}
    train_together(members(runs, tmp_path / "hurt"), quiet())
    for i in range(len(runs)):
        for x, y in zip(arrays(tmp_path / "hurt" / str(i)), arrays(tmp_path / "calm" / str(i)), strict=True):
            np.testing.assert_array_equal(x, y)
