"""Optional writers: chosen by name, never a reason for a run to fail."""

import logging
import sys
import types

import pytest

from lm.train.writers import WriterError, writer

ROW = {"step": 3, "split": "train", "loss": 2.5, "norm": float("nan"), "note": "text", "flag": True, "absent": None}


def test_tensorboard_files_hold_the_numbers(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # it would import it where it is installed, for seconds
    pytest.importorskip("tensorboardX")
    from tensorboardX.event_file_writer import EventsWriter  # noqa: F401
    from tensorboardX.proto.event_pb2 import Event

    board = writer("tensorboard", tmp_path)
    board.write(ROW)
    board.write({"step": 4, "split": "heldout", "loss": 2.0})
    board.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, found = path.read_bytes(), []
    while data:  # TFRecord: length, its CRC, the event, its CRC
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + size :]
    assert found == [(3, "train/loss", 2.5), (4, "heldout/loss", 2.0)]


class FakeRun(types.SimpleNamespace):
    def log(self, values):
        if self.broken:
            raise RuntimeError("no connection")
        self.rows.append(values)

    def define_metric(self, *_, **__): ...

    def finish(self):
        self.rows.append("finished")


@pytest.fixture
def wandb(monkeypatch):
    run = FakeRun(rows=[], broken=False)

    def init(**options):
        run.options = options
        return run

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return run


def test_wandb_is_offline_unless_asked(tmp_path, wandb, monkeypatch):
    given = writer("wandb", tmp_path / "ab12")
    assert wandb.options["mode"] == "offline" and wandb.options["id"] == "ab12" and wandb.options["resume"] == "allow"
    given.write(ROW)
    given.close()
    assert wandb.rows == [{"train/loss": 2.5, "step": 3}, "finished"]
    monkeypatch.setenv("WANDB_MODE", "online")
    writer("wandb", tmp_path)
    assert wandb.options["mode"] is None


def test_a_failing_writer_warns_once_and_the_run_goes_on(tmp_path, wandb, caplog):
    wandb.broken = True
    given = writer("wandb", tmp_path)
    with caplog.at_level(logging.WARNING, "lm.train"):
        for _ in range(3):
            given.write(ROW)
        given.close()
    assert [record.message for record in caplog.records] == [
        "wandb stopped (RuntimeError: no connection); the run goes on"
    ]


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    with pytest.raises(WriterError, match="did you mean 'tensorboard'"):
        writer("tensorbord", tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(WriterError, match=r"pip install 'lm\[wandb\]'"):
        writer("wandb", tmp_path)
