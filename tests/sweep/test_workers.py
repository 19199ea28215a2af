"""Workers: killed at random, of several processes, told to stop; and on a real Slurm."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm.sweep import manifest
from lm.train.folder import PATIENCE
from lm.train.rows import read
from lm.train.signals import STOPPED
from tools import chaos, slurm_cluster

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="workers are pinned as Linux does it")


def plain_environment() -> dict[str, str]:
    """As a user's shell has it: without the virtual devices of the tests."""
    return {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "NPROC")}


@pytest.fixture
def plain(monkeypatch):
    for name in ("XLA_FLAGS", "NPROC"):
        monkeypatch.delenv(name, raising=False)


def test_killed_at_random_the_sweep_ends_equal_to_the_bit(tmp_path, plain, capsys):
    """Workers, all of them, and the process that waits for them; `tools/chaos.py` does it for longer."""
    chaos.main([str(tmp_path), "--runs", "6", "--steps", "60", "--rounds", "6", "--on", "local", "--limit", "400"])
    assert "local: 6 runs" in capsys.readouterr().out


def test_killed_and_preempted_on_slurm_the_sweep_ends_equal_to_the_bit(tmp_path, plain, capsys, monkeypatch):
    try:
        slurm_cluster.check_machine()
    except slurm_cluster.ClusterError as error:
        pytest.skip(str(error))
    with slurm_cluster.cluster() as here:
        for name, value in here.environment().items():
            monkeypatch.setenv(name, value)
        chaos.main([str(tmp_path), "--runs", "6", "--steps", "60", "--rounds", "6", "--on", "slurm", "--limit", "600"])
    assert "slurm: 6 runs" in capsys.readouterr().out


@pytest.fixture
def planned(tmp_path) -> Path:
    """The manifest of two runs long enough to be disturbed."""
    experiment = chaos.write_experiment(tmp_path, runs=2, steps=150)
    plan = [sys.executable, "-m", "lm", "sweep", "plan", experiment.name, "--device", "H100"]
    subprocess.run(plan, cwd=tmp_path, check=True, env=plain_environment(), stdout=subprocess.DEVNULL)
    return tmp_path / "results" / "many" / "manifest.jsonl"


def start(manifest: Path, *options: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "lm", "sweep", "worker", str(manifest), "--quiet", *options]
    return subprocess.Popen(command, env=plain_environment() | environment, stdout=subprocess.PIPE, text=True)


def pair(manifest: Path) -> list[subprocess.Popen]:
    """A worker of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joined = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "NPROC": "16"}
    return [start(manifest, JAX_PROCESS_ID=str(i), **joined) for i in range(2)]


def test_two_processes_train_a_run_together_and_stop_together(planned):
    """One of them is told to stop: both save at the same step; begun again, they go on to the end of both runs."""
    entries = manifest.read(planned)
    processes = pair(planned)
    try:
        wait_for_rows(entries[0].folder.rows, 3, processes)
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(60) for process in processes] == [STOPPED, STOPPED]
    finally:
        end(processes)
    assert entries[0].status() == "interrupted"
    processes = pair(planned)
    try:
        said = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        end(processes)
    assert [process.returncode for process in processes] == [0, 0], said
    assert {entry.status() for entry in entries} == {"done"}
    steps = [(row["step"], row["split"]) for row in read(entries[0].folder.rows)]
    assert len(set(steps)) == len(steps)
    alone = start(copied(planned))
    assert alone.wait(200) == 0
    for entry, other in zip(entries, manifest.read(copied(planned)), strict=True):
        assert entry.folder.result()["heldout_loss"] == pytest.approx(other.folder.result()["heldout_loss"], rel=1e-4)


def copied(planned: Path) -> Path:
    """The same manifest in a results folder of its own."""
    path = planned.parents[1].with_name("alone") / "many" / "manifest.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(planned.read_bytes())
    return path


def wait_for_rows(path: Path, count: int, processes: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 120
    while len(read(path)) < count:
        assert all(process.poll() is None for process in processes), "a worker ended before it was disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def test_a_run_that_always_dies_is_given_up_and_the_rest_goes_on(planned, tmp_path):
    """The first run kills its process whenever it is trained."""
    entries = manifest.read(planned)
    deadly = tmp_path / "deadly.py"
    deadly.write_text(
        "import os, signal, sys\n"
        "from lm.train import lane\n"
        "counted = lane.RunFolder.count_try\n"
        "def count_try(self, step, limit):\n"
        "    counted(self, step, limit)\n"
        f"    if self.path.name == {entries[0].id!r}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "lane.RunFolder.count_try = count_try\n"
        "from lm.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    codes = []
    while not entries[0].folder.failed_for_good() and len(codes) < 10:
        command = [sys.executable, str(deadly), "sweep", "worker", str(planned), "--quiet", "--tries", "1"]
        codes.append(subprocess.run(command, env=plain_environment(), stdout=subprocess.DEVNULL).returncode)
    assert codes == [-signal.SIGKILL] * PATIENCE + [0]
    assert [entry.status() for entry in entries] == ["failed", "done"]
    assert "given up after 5 tries from step 0" in entries[0].folder.failure()


def test_slurms_warning_ends_the_worker_and_queues_it_again():
    """The warning comes while the job waits for its worker; without Slurm, with a worker that saves when told."""

    saves = "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: os._exit(143)); time.sleep(60)"
    code = (
        "import signal, sys\n"
        "from lm.sweep.launchers.slurm import Supervised\n"
        f"job = Supervised(('timeit', '-n1', '-r1', {saves!r}))\n"
        "def warned(*_):\n"
        "    again = job.checkpoint()\n"
        "    print(again.function.command[0], job.child.returncode, flush=True)\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGUSR2, warned)\n"
        "job()\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=plain_environment())
    deadline = time.monotonic() + 60
    while not Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)  # for the worker to take its handler
    job.send_signal(signal.SIGUSR2)
    try:
        assert job.communicate(timeout=30)[0].split() == ["timeit", "143"]
    finally:
        job.kill()


def test_planning_again_says_what_changed_and_replaces_the_manifest(planned):
    """Workers that are at work keep to the plan they have read."""
    experiment = planned.parents[2] / "many.py"
    experiment.write_text(experiment.read_text().replace("steps=150", "steps=200").replace("4e-3", "5e-3"))
    before = [entry.id for entry in manifest.read(planned)]
    plan = [sys.executable, "-m", "lm", "sweep", "plan", experiment.name, "--device", "H100"]
    said = subprocess.run(plan, cwd=experiment.parent, env=plain_environment(), capture_output=True, text=True).stdout
    assert "2 changed: train.steps: 150 -> 200" in said
    assert [entry.id for entry in manifest.read(planned)] != before
    assert json.loads(planned.read_text().splitlines()[0])["config"]["train"]["steps"] == 200
