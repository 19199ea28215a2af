"""One process a run folder, whatever becomes of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lm.train.lock import NAME, RunLocked, lock

HOLD = """
import sys, time
from lm.train.lock import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_told_who_holds_it(tmp_path, holder):
    with pytest.raises(RunLocked, match=f"process {holder.pid} on "), lock(tmp_path):
        pass


def test_the_lock_is_free_when_its_holder_is_killed(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with lock(tmp_path), pytest.raises(RunLocked, match=f"process {os.getpid()} on "), lock(tmp_path):
        pass
    with lock(tmp_path):  # released at the end of `with`
        pass


def test_a_forked_child_that_lives_on_doesnt_hold_it(tmp_path):
    with lock(tmp_path):
        (held,) = [int(fd) for fd in os.listdir("/proc/self/fd") if _points_to(fd, tmp_path / NAME)]
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], pass_fds=[held])
    try:
        with lock(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def _points_to(fd: str, path: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == str(path)
    except OSError:
        return False
