"""What a run is asked to look at: rows, details and snapshots, the same to the bit however often it is interrupted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lm import cli
from lm.config import ConfigError, config, replace
from lm.data import Source, TaskData
from lm.data.examples import SymbolCodec
from lm.data.synthetic import ModularSum, Reversing
from lm.errors import UserError
from lm.evals import Answers, Positions
from lm.models import Decoder
from lm.nn import MLP, Block, mha, param
from lm.sharding import layout
from lm.train import Recording, Run, Training
from lm.train.checkpoint import CheckpointError, Checkpoints
from lm.train.fleet import Alone
from lm.train.folder import RunError, RunFolder
from lm.train.group import Member, train_together
from lm.train.lane import Lane
from lm.train.load import evaluate_run, load_run
from lm.train.lock import LeaseLost
from lm.train.loop import Diverged, Machine, train
from lm.train.measure import Found, Look, Measure, prepared
from lm.train.rows import read
from lm.train.step import Program
from tests.train.test_loop import Kill, interrupt_at, rows

QUIET = Machine(quiet=True)
TASK = Reversing(alphabet=3, shortest=1, longest=3)
EVALUATED, KEPT, SAVED = (1, 2, 4, 8), (1, 2, 3, 4, 6, 8), (5, 8)


def sizes(params: param.Params) -> list[float]:
    return [float(np.linalg.norm(np.asarray(x, np.float64))) for x in jax.tree.leaves(params)]


@config
class Sizes(Measure):
    """The norm of each array of weights: tells to the bit which ones were looked at."""

    name: str = "sizes"

    def prepare(self, program: Program, data: Source) -> Look:
        return lambda params: Found({"largest": max(sizes(params))}, {"norms": sizes(params)})


@pytest.fixture(scope="module")
def run() -> Run:
    return Run(
        model=Decoder(vocab=TASK.vocab, width=16, layers=1, block=Block(mixer=mha(2), ff=MLP(hidden=32))),
        data=TaskData(task=TASK, batch=8, heldout=0.3, test=20),
        train=Training(steps=8, ema=0.9),
        record=Recording(
            every=5, evaluations=1, checkpoint_every=5, keep=2, snapshots=2, measures=(Answers(examples=16), Sizes())
        ),
    )


@pytest.fixture(scope="module")
def undisturbed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(run, folder, QUIET)
    return folder


def weights(folder: Path) -> dict[int, param.Params]:
    """Those of the newest checkpoint, as step 0, and all snapshots by step."""
    found = {0: load_run(folder).params}
    with Checkpoints(folder / "snapshots", keep=None) as snapshots:
        assert snapshots.steps() == KEPT
        return found | {step: snapshots.restore({"params": found[0]}, step)["params"] for step in KEPT}


def assert_same(a: Path, b: Path) -> None:
    """The same rows, details and snapshots, once each."""
    assert rows(a) == rows(b)
    assert (a / "details.jsonl").read_bytes() == (b / "details.jsonl").read_bytes()
    for x, y in zip(*map(jax.tree.leaves, (weights(a), weights(b))), strict=True):
        np.testing.assert_array_equal(x, y)


# ---- what is written -------------------------------------------------------------------------------------------------


def test_each_evaluation_has_a_row_and_the_details_of_each_measure(undisturbed: Path) -> None:
    found = [(row["step"], row["split"]) for row in rows(undisturbed)]
    for step in EVALUATED:  # by the last row a resumed run knows that the others are there
        of_step = [split for at, split in found if at == step and split != "train"]
        assert of_step == ["answers", "sizes", "heldout"]
    assert {step for step, split in found if split != "train"} == set(EVALUATED)
    details = read(undisturbed / "details.jsonl")
    assert [(row["step"], row["split"]) for row in details] == [
        (step, name) for step in EVALUATED for name in ("answers", "sizes")
    ]
    for row in rows(undisturbed):
        if row["split"] == "answers":
            assert row["tokens"] == row["step"] * 8 * TASK.length != row["answer_tokens"]  # read in training, and said
            whole = next(d for d in details if (d["step"], d["split"]) == (row["step"], "answers"))
            assert len(whole["exact"]) == 16 and np.mean(whole["logprob"]) == pytest.approx(row["logprob"], rel=1e-5)


def test_the_averaged_weights_are_looked_at_and_kept(run: Run, undisturbed: Path) -> None:
    norms = {row["step"]: row["norms"] for row in read(undisturbed / "details.jsonl") if row["split"] == "sizes"}
    kept = weights(undisturbed)
    assert norms == {step: sizes(kept[step]) for step in EVALUATED}
    with Checkpoints(undisturbed / "checkpoints") as checkpoints:
        state = checkpoints.restore(load_run(undisturbed).program.abstract_state(), 8)
    assert norms[8] == sizes(state.ema) == sizes(kept[0]) != sizes(state.params)
    assert len({tuple(x) for x in norms.values()}) == len(EVALUATED)


def test_without_measures_and_snapshots_there_are_no_files_of_them(run: Run, tmp_path: Path) -> None:
    plain = replace(run, {"record.measures": (), "record.snapshots": 0, "train.steps": 2})
    train(plain, tmp_path, QUIET)
    assert not (tmp_path / "details.jsonl").exists() and not (tmp_path / "snapshots").exists()
    assert {row["split"] for row in rows(tmp_path)} == {"train", "heldout"}
    with pytest.raises(RunError, match=r"has no snapshots; train it with record.snapshots=1"):
        load_run(tmp_path, step=1)


def test_names_are_each_measures_own(run: Run) -> None:
    both = (Answers(), Positions(name="answers"))
    with pytest.raises(ConfigError, match="measures: the name 'answers' is taken; give that measure another name="):
        replace(run, {"record.measures": both})
    for name in ("train", "heldout"):
        with pytest.raises(ConfigError, match=f"the name '{name}' is taken"):
            Recording(measures=(Sizes(name=name),))
    assert len(Recording(measures=(Answers(), Answers(name="more", choices=4))).measures) == 2


def test_a_measure_that_makes_no_sense_ends_the_run_before_it_begins(run: Run, tmp_path: Path) -> None:
    other = replace(run, {"record.measures": (Answers(task=ModularSum()),)})
    with pytest.raises(UserError, match=r"measure answers: ModularSum.* has other symbols"):
        train(other, tmp_path, QUIET)
    assert RunFolder(tmp_path).status() == "failed" and not rows(tmp_path)


def test_runs_that_differ_in_seeds_and_numbers_share_what_is_prepared(run: Run) -> None:
    program, measure, made = Alone(run, layout()).program, Answers(examples=4), []
    for change in ({}, {"data.seed": 7, "seed": 3}, {"train.optimizer.learning_rate": 0.5}):
        other = replace(run, change)
        made.append(prepared(measure, Alone(other, layout()).program, other.data))
    assert made[0] is made[1] is made[2]
    assert prepared(measure, program, replace(run.data, {"test": 21})) is not made[0]
    assert prepared(Answers(examples=5), program, run.data) is not made[0]


# ---- interrupted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 7])
def test_resumed_equals_uninterrupted(run: Run, undisturbed: Path, tmp_path: Path, monkeypatch: Any, step: int) -> None:
    with monkeypatch.context() as patch, pytest.raises(Kill):
        interrupt_at(patch, step)
        train(run, tmp_path, QUIET)
    train(run, tmp_path, QUIET)
    assert_same(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("method", "at", "last"),
    [("evaluated", 8, (8, "sizes")), ("snapshot", 6, (5, "train")), ("save", 8, (8, "heldout"))],
)
def test_resumed_from_the_middle_of_what_is_written(
    run: Run, undisturbed: Path, tmp_path: Path, monkeypatch: Any, method: str, at: int, last: tuple[int, str]
) -> None:
    """Between a measure and the row that ends an evaluation, at a snapshot, at a checkpoint."""
    original = getattr(Lane, method)

    def dies(self: Lane, step: int, *others: Any) -> None:
        if step == at:
            raise Kill
        original(self, step, *others)

    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(Lane, method, dies)
        train(run, tmp_path, QUIET)
    assert [(row["step"], row["split"]) for row in rows(tmp_path)][-1] == last
    train(run, tmp_path, QUIET)
    assert_same(tmp_path, undisturbed)


def test_what_is_ahead_of_the_checkpoint_is_made_again(run: Run, undisturbed: Path, tmp_path: Path) -> None:
    """As a process leaves it that was killed before the last checkpoint was whole; its snapshot may be anything."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "result.json").unlink()
    for part, number in (("checkpoints", "8"), ("snapshots", "8")):
        shutil.rmtree(folder / part / number)
    shutil.copytree(folder / "snapshots" / "1", folder / "snapshots" / "8")
    assert Checkpoints(folder / "checkpoints").steps() == (5,)
    train(run, folder, QUIET)
    assert_same(folder, undisturbed)


def test_a_checkpoint_is_begun_when_the_snapshots_before_it_are_whole(
    run: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    """A run that goes on from it makes none of them again."""
    save, missing, saved = Checkpoints.save, [], []

    def look(self: Checkpoints, step: int, *others: Any) -> None:
        if self.folder.name == "checkpoints":
            saved.append(step)
            listed = [(self.folder.parent / "snapshots" / str(s) / "files.json").exists() for s in KEPT if s <= step]
            missing.extend([step] * listed.count(False))
        save(self, step, *others)

    monkeypatch.setattr(Checkpoints, "save", look)
    train(run, tmp_path, QUIET)
    assert tuple(saved) == SAVED and not missing


def test_a_process_that_lost_its_lease_keeps_no_snapshot(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    snapshot = Lane.snapshot

    class Lost:
        def check(self) -> None:
            raise LeaseLost("another process has it")

    def late(self: Lane, step: int, params: param.Params) -> None:
        held, self.lease = self.lease, Lost() if step == 3 else self.lease  # type: ignore[assignment]
        try:
            snapshot(self, step, params)
        finally:
            self.lease = held

    monkeypatch.setattr(Lane, "snapshot", late)
    with pytest.raises(LeaseLost):
        train(run, tmp_path, QUIET)
    assert Checkpoints(tmp_path / "snapshots").steps() == (1, 2)


def test_nothing_is_looked_at_where_the_loss_is_no_number(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    evaluate = Alone.evaluate

    def fails(self: Alone, *others: Any) -> list[dict[str, Any]]:
        return [{**found, "loss": float("nan")} for found in evaluate(self, *others)]

    monkeypatch.setattr(Alone, "evaluate", fails)
    with pytest.raises(Diverged, match="loss is nan at step 1"):
        train(run, tmp_path, QUIET)
    assert {row["split"] for row in rows(tmp_path)} == {"train"} and not read(tmp_path / "details.jsonl")


# ---- together --------------------------------------------------------------------------------------------------------


def test_in_a_group_as_alone(run: Run, undisturbed: Path, tmp_path: Path) -> None:
    runs = [run, replace(run, {"seed": 1, "data.seed": 3, "train.optimizer.learning_rate": 3e-3})]
    train(runs[1], tmp_path / "alone", QUIET)
    members = [Member(each, tmp_path / str(i)) for i, each in enumerate(runs)]
    results = train_together(members, Machine(quiet=True, layout=layout("data=1")))
    assert all(isinstance(result, dict) for result in results), results
    for i, alone in enumerate((undisturbed, tmp_path / "alone")):
        for name in ("rows.jsonl", "details.jsonl"):
            for mine, theirs in zip(read(tmp_path / str(i) / name), read(alone / name), strict=True):
                assert mine.pop("split") == theirs.pop("split")
                for key in theirs.keys() - {"seconds", "tokens_per_second", "mfu"}:
                    np.testing.assert_allclose(mine[key], theirs[key], rtol=2e-4, atol=2e-5, err_msg=key)
        for x, y in zip(*map(jax.tree.leaves, (weights(tmp_path / str(i)), weights(alone))), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)
    first, second = (read(tmp_path / str(i) / "details.jsonl") for i in range(2))
    assert first[-1]["norms"] != second[-1]["norms"]


# ---- read again ------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_what_the_run_was_then(run: Run, undisturbed: Path) -> None:
    losses = {row["step"]: row["loss"] for row in rows(undisturbed) if row["split"] == "heldout"}
    for step in (2, 8):
        assert evaluate_run(load_run(undisturbed, step=step))["loss"] == pytest.approx(losses[step], rel=1e-6)
    assert losses[2] != pytest.approx(losses[8], rel=1e-3)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5 in .*snapshots; it has \[1, 2, 3, 4, 6, 8\]"):
        load_run(undisturbed, step=5)


def test_the_codec_is_there_without_the_task(undisturbed: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(TaskData, "load", lambda self: pytest.fail("the data was read"))
    codec = load_run(undisturbed).codec
    assert isinstance(codec, SymbolCodec) and codec.encode("ab>ba").tolist() == [1, 2, 4, 2, 1]


def test_the_command_evaluates_a_snapshot(undisturbed: Path, capsys: Any) -> None:
    said = []
    for arguments in (["--step", "2"], ["--step", "8"], []):
        with pytest.raises(SystemExit) as end:
            cli.main(["eval", str(undisturbed), *arguments])
        assert not end.value.code
        said.append(capsys.readouterr().out)
    losses = {row["step"]: row["loss"] for row in rows(undisturbed) if row["split"] == "heldout"}
    assert f"held-out loss {losses[2]:.4f} nats/token" in said[0]
    assert f"held-out loss {losses[8]:.4f} nats/token" in said[1] and said[1] == said[2] != said[0]
    with pytest.raises(SystemExit) as end:
        cli.main(["eval", str(undisturbed), "--step", "5"])
    error = capsys.readouterr().err
    assert end.value.code == 1 and error.count("\n") == 1 and "it has [1, 2, 3, 4, 6, 8]" in error
