"""Optional writers: chosen by name, never a reason for a run to fail."""

import contextlib
import importlib.util
import json
import logging
import os
import sqlite3
import subprocess
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
    assert wandb.options["reinit"] == "create_new"  # else runs trained side by side would all be logged to the first


SIDE_BY_SIDE = """
import sys
from lm.train.writers import writer

name, folder = sys.argv[1:]
first, second = writer(name, folder + "/first"), writer(name, folder + "/second")
for step in (1, 2):
    first.write({"step": step, "split": "train", "loss": 2.8125 * step, "norm": float("nan"), "note": "text"})
    second.write({"step": step, "split": "heldout", "loss": 3.71875 * step})
first.close()
second.write({"step": 3, "split": "train", "loss": 1.5})
second.close()
resumed = writer(name, folder + "/first")
resumed.write({"step": 3, "split": "train", "loss": 0.5})
resumed.close()
"""


def side_by_side(name, tmp_path):
    """Runs written side by side and one resumed, by the real client, in a process of its own: what it prints."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} isn't installed; pip install 'lm[{name}]'")
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "TRACKIO_"))}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TRACKIO_DIR": str(tmp_path / "trackio")}
    command = [sys.executable, "-c", SIDE_BY_SIDE, name, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "stopped" not in done.stderr, done.stderr
    return done.stdout


def test_trackio_keeps_runs_apart_in_a_local_file(tmp_path):
    said = side_by_side("trackio", tmp_path)
    assert not said  # a command's output is the command's
    with contextlib.closing(sqlite3.connect(tmp_path / "trackio" / "lm.db")) as database:
        rows = database.execute("select run_name, step, metrics from metrics order by run_name, step").fetchall()
    assert [(run, step, json.loads(numbers)) for run, step, numbers in rows] == [
        ("first", 1, {"train/loss": 2.8125}),
        ("first", 2, {"train/loss": 5.625}),
        ("first", 3, {"train/loss": 0.5}),
        ("second", 1, {"heldout/loss": 3.71875}),
        ("second", 2, {"heldout/loss": 7.4375}),
        ("second", 3, {"train/loss": 1.5}),
    ]


def test_wandb_keeps_runs_apart_in_local_files(tmp_path):
    side_by_side("wandb", tmp_path)
    for run, its, others in (("first", b"2.8125 5.625", b"3.71875"), ("second", b"3.71875 7.4375", b"2.8125")):
        files = list((tmp_path / run / "wandb").glob("offline-run-*/*.wandb"))
        written = b"".join(path.read_bytes() for path in files)
        assert all(value in written for value in its.split()) and others not in written
        assert len(files) == {"first": 2, "second": 1}[run]  # one each start


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
