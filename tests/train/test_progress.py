"""Progress: a bar on a terminal, a few lines elsewhere, nothing when quiet."""

import contextlib
import logging
import os
import pty

import pytest

from lm.train.progress import Progress, duration


def follow(progress: Progress, start: int = 0) -> None:
    with progress:
        for step in range(start + 1, 101):
            progress.update(step, loss=2.5, tokens_per_second=12345.6)


def test_elsewhere_a_line_at_each_doubling_and_the_end(caplog, capfd):
    with caplog.at_level(logging.INFO, "lm.train"):
        follow(Progress(100))
    lines = [record.message for record in caplog.records]
    assert [line.split(",")[0] for line in lines] == [f"step {n}/100" for n in (1, 2, 4, 8, 16, 32, 64, 100)]
    assert "loss 2.5000, 12,346 tokens/s" in lines[0] and "left" in lines[3] and "left" not in lines[-1]
    assert capfd.readouterr() == ("", "")


def test_a_resumed_run_doesnt_repeat_old_lines(caplog):
    with caplog.at_level(logging.INFO, "lm.train"):
        follow(Progress(100, start=50), start=50)
    assert [record.message.split(",")[0] for record in caplog.records] == ["step 51/100", "step 64/100", "step 100/100"]


def test_quiet_is_silent(caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        follow(Progress(100, quiet=True))
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    reader, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        follow(Progress(100, label="MQA"))
    shown = b""
    with contextlib.suppress(OSError):  # the end, when the other side is closed
        while part := os.read(reader, 1 << 16):
            shown += part
    os.close(reader)
    shown = shown.decode()
    assert "MQA" in shown and "100/100" in shown and "loss 2.5000 12,346 tokens/s" in shown


@pytest.mark.parametrize(("seconds", "text"), [(8.2, "8s"), (200, "3m20s"), (59.6, "1m00s"), (7500, "2h05m")])
def test_duration(seconds, text):
    assert duration(seconds) == text
