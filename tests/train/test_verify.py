"""Doing steps of a run again and comparing: what is as it was is said to be so, what isn't is named."""

import json

import pytest

from lm.config import dumps, replace
from lm.errors import UserError
from lm.train.folder import RunFolder
from lm.train.lane import Machine
from lm.train.loop import train
from lm.train.verify import verify
from tests.train.test_group import base  # noqa: F401

QUIET = Machine(quiet=True)


@pytest.fixture
def done(base, tmp_path):  # noqa: F811
    train(base, tmp_path / "run", QUIET)
    return tmp_path / "run"


def test_an_honest_run_is_verified_from_its_oldest_checkpoint(done):
    verdict = verify(done, steps=5)
    assert verdict.equal and (verdict.first, verdict.last) == (9, 12)  # keep=2: steps 9 and 12 are there
    assert verdict.numbers >= 3 * 6 and verdict.arrays > 0
    assert "steps 10 to 12 done again" in verdict.text() and "equal to the bit" in verdict.text()


def test_a_changed_number_is_named(done):
    rows = [json.loads(line) for line in (done / "rows.jsonl").read_text().splitlines()]
    changed = next(row for row in rows if row["split"] == "train" and row["step"] == 11)
    changed["loss"] += 1e-6
    (done / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verdict = verify(done)
    assert not verdict.equal and len(verdict.differences) == 1
    assert verdict.differences[0].startswith("loss at step 11: ")


def test_another_config_is_found_out(done):
    """Someone edits the learning rate in the folder after the fact: neither rows nor weights fit any more."""
    run = replace(RunFolder(done).config(), {"train.optimizer.learning_rate": 2e-3})
    (done / "config.json").write_text(dumps(run))
    verdict = verify(done)
    assert any("learning_rate at step 10" in line for line in verdict.differences)
    assert any("params" in line and "checkpoint of step 12" in line for line in verdict.differences)


def test_a_run_that_has_begun_is_verified_from_the_start(base, tmp_path):  # noqa: F811
    run = replace(base, {"record.checkpoint_every": None, "record.keep": 1})
    train(run, tmp_path, QUIET)
    verdict = verify(tmp_path, steps=4)
    assert verdict.equal and (verdict.first, verdict.last) == (0, 4) and verdict.arrays == 0
    assert verify(tmp_path, steps=12).arrays > 0  # the last step's checkpoint


def test_nothing_to_compare_is_said(base, tmp_path):  # noqa: F811
    RunFolder(tmp_path).create(base, "", "x", {"packages": {}})
    with pytest.raises(UserError):
        verify(tmp_path)


def test_the_folder_is_left_as_it_was(done):
    before = {p: p.stat().st_mtime_ns for p in done.rglob("*") if p.is_file()}
    verify(done)
    assert {p: p.stat().st_mtime_ns for p in done.rglob("*") if p.is_file()} == before
