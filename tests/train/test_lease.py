"""Leases between machines: here processes that are told they are on different ones, without the kernel's lock."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm.train import lease as module
from lm.train.lease import Lease, LeaseLost, RunLocked

# Each child is a machine of its own with quick heartbeats. It tries for the lease again and again; while it has it, it
# notes so in a file that only the holder may write to, and finds anyone else who writes there too.
CHILD = """
import os, random, sys, time
from pathlib import Path
from lm.train import lease as module
module.MACHINE, module.BEAT, module.EXPIRY, module.WATCH = sys.argv[2], 0.1, 0.8, 0.8
folder, rng = Path(sys.argv[1]), random.Random(sys.argv[2])
while True:
    lease = module.Lease(folder)
    try:
        lease.take()
    except module.RunLocked:
        time.sleep(0.01)
        continue
    try:
        for _ in range(rng.randrange(5, 40)):
            lease.check()
            with open(folder / "work", "a") as file:
                file.write(lease.owner.token + "\\n")
            time.sleep(0.01)
    except module.LeaseLost:
        continue
    lease.release()
"""


@pytest.fixture
def quick(monkeypatch):
    for name, value in {"BEAT": 0.05, "EXPIRY": 0.8, "WATCH": 0.8}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "_heart", module._Heart())  # one that doesn't sleep for the usual time first


def other_host(monkeypatch, folder: Path, host: str = "elsewhere") -> Lease:
    """A lease as a process of another machine would take it."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "HOST", host)
        patch.setattr(module, "MACHINE", f"boot of {host}")
        lease = Lease(folder)
    lease.take()
    return lease


def test_a_live_lease_is_respected_however_long_it_lasts(tmp_path, quick, monkeypatch):
    held = other_host(monkeypatch, tmp_path)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        with pytest.raises(RunLocked, match=f"process {os.getpid()} on elsewhere"):
            Lease(tmp_path).take()
    held.release()
    mine = Lease(tmp_path)
    mine.take()
    mine.release()
    assert not list(tmp_path.iterdir())


def test_a_dead_lease_is_taken_over_after_it_was_watched(tmp_path, quick, monkeypatch):
    dead = other_host(monkeypatch, tmp_path)
    module._heart.remove(dead)  # as if its process were gone
    with pytest.raises(RunLocked):
        Lease(tmp_path).take()
    time.sleep(1.0)
    began, mine = time.monotonic(), Lease(tmp_path)
    mine.take()
    assert time.monotonic() - began >= 0.7  # WATCH: it wasn't taken at first sight
    mine.check()
    with pytest.raises(LeaseLost, match="taken over by process"):
        dead.beat()
    mine.release()
    assert not list(tmp_path.iterdir())


def test_a_process_that_stood_still_learns_that_it_lost(tmp_path, quick, monkeypatch):
    slept = other_host(monkeypatch, tmp_path)
    module._heart.remove(slept)
    time.sleep(1.0)
    mine = Lease(tmp_path)
    mine.take()
    with pytest.raises(LeaseLost):
        slept.check()
    slept.release()  # and doesn't take the other's away
    mine.beat()
    mine.release()


@pytest.mark.parametrize("jump", [-1e6, 1e6], ids=["back", "forward"])
def test_a_clock_that_jumps_frees_no_lease(tmp_path, quick, monkeypatch, jump):
    """The clock of the machine that looks, and the times of the file, are wrong by days."""
    held = other_host(monkeypatch, tmp_path)
    monkeypatch.setattr(time, "time", lambda: 1e9 + jump)
    for _ in range(5):
        os.utime(tmp_path / "lease", (1e9 + jump, 1e9 + jump))
        with pytest.raises(RunLocked):
            Lease(tmp_path).take()
    held.release()


def test_a_taker_that_died_in_the_middle_blocks_nobody_for_good(tmp_path, quick, monkeypatch):
    dead = other_host(monkeypatch, tmp_path)
    module._heart.remove(dead)
    (tmp_path / f"lease.{dead.owner.token}.0").mkdir()
    time.sleep(1.0)
    mine = Lease(tmp_path)
    mine.take()
    mine.release()
    assert not list(tmp_path.iterdir())


def test_processes_killed_and_stopped_at_random_never_hold_it_twice(tmp_path):
    rng = random.Random(0)
    children = {f"host{i}": child(tmp_path, f"host{i}") for i in range(4)}
    try:
        wait_for_work(tmp_path)
        deadline, disturbed = time.monotonic() + 20, 0
        while time.monotonic() < deadline:
            time.sleep(rng.uniform(0.05, 0.5))
            name = rng.choice(sorted(children))
            if rng.random() < 0.5:
                children[name].kill()
                children[name].wait()
                children[name] = child(tmp_path, name)
            else:  # stopped for longer than a lease lasts, then let go
                children[name].send_signal(signal.SIGSTOP)
                time.sleep(rng.uniform(0.3, 2.5))
                children[name].send_signal(signal.SIGCONT)
            disturbed += 1
        assert disturbed > 5
    finally:
        for process in children.values():
            process.kill()
            process.wait()
    turns = [(token, len(list(lines))) for token, lines in itertools.groupby((tmp_path / "work").read_text().split())]
    assert len(turns) > 5
    seen: set[str] = set()
    for token, lines in turns:
        # one that was stopped between asking and writing has that one line in hand, and learns of its loss after it
        assert token not in seen or lines == 1, "someone went on writing after another had taken over"
        seen.add(token)


def child(folder: Path, host: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder), host])


def wait_for_work(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not (folder / "work").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_folder_says_who_holds_it(tmp_path, quick):
    lease = Lease(tmp_path)
    lease.take()
    assert json.loads((tmp_path / "lease").read_text())["pid"] == os.getpid()
    lease.release()
