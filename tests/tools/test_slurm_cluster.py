"""The cluster for tests: it runs jobs, treats them as its docstring says, and is gone when it is stopped."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tools import slurm_cluster
from tools.slurm_cluster import LONGEST_FOLDER, Cluster, ClusterError, check_machine, cluster

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0  # seconds on a busy machine; nothing here takes more than ten


@pytest.fixture
def machine():
    try:
        check_machine()
    except ClusterError as error:
        pytest.skip(str(error))


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own folders have names too long for sockets
    yield path
    shutil.rmtree(path, ignore_errors=True)


def tool(*arguments):
    command = [sys.executable, "tools/slurm_cluster.py", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def ask(where, *command):
    done = subprocess.run(command, env=where.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def submit(where, output, script, *options):
    return ask(where, "sbatch", "--parsable", f"--output={output}", "--open-mode=append", *options, "--wrap", script)


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def alive(pid):
    return Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_it_starts_runs_on_both_nodes_and_leaves_nothing(machine, folder):
    started = tool("start", folder)
    assert started.returncode == 0, started.stderr
    here = Cluster(folder)
    daemons = [int(path.read_text()) for path in folder.glob("*.pid")]
    try:
        assert started.stdout == f"export SLURM_CONF={folder}/slurm.conf\n"
        assert len(daemons) == 4 and all(map(alive, daemons))
        assert sorted(ask(here, "srun", "-N2", "sh", "-c", "echo $SLURMD_NODENAME").split()) == ["n1", "n2"]
        submit(here, folder / "job", "echo $$; sleep 600", "--array=0-1")
        until(lambda: (folder / "job").exists() and len((folder / "job").read_text().split()) == 2)
        assert tool("status", folder).stdout.count("runs as process") == 4
    finally:
        stopped = tool("stop", folder)
    assert stopped.returncode == 0, stopped.stderr
    jobs = [int(pid) for pid in (folder / "job").read_text().split()]
    assert not [pid for pid in daemons + jobs if alive(pid)]
    assert tool("stop", folder).stdout == "stopped: nothing ran\n"


JOB = """\
trap 'echo TERM; exit 143' TERM
echo start ${SLURM_RESTART_COUNT:-0}
sleep ${SLURM_RESTART_COUNT:+0} ${SLURM_RESTART_COUNT-600} & wait
echo end
"""


def test_jobs_end_and_come_back_as_described(machine, folder):
    (folder / "job.sh").write_text(JOB)
    requeued, stepped = folder / "requeued", folder / "stepped"
    again = f"srun sh {folder}/job.sh || scontrol requeue $SLURM_JOB_ID"
    with cluster() as here:
        job = submit(here, requeued, f"exec sh {folder}/job.sh", "--partition=low")
        submit(here, stepped, again, "--partition=low", "--nodelist=n2", "--exclusive")
        until(lambda: "start 0" in _text(requeued) and "start 0" in _text(stepped))
        ask(here, "scontrol", "requeue", job.strip())
        submit(here, folder / "high", "true", "--partition=high", "--nodelist=n2", "--exclusive")
        until(lambda: "end" in _text(requeued) and "end" in _text(stepped))
        until(lambda: not ask(here, "squeue", "--noheader"))
    for output in (requeued, stepped):
        said = [line for line in _text(output).splitlines() if line in ("TERM", "end") or line.startswith("start")]
        assert said == ["start 0", "TERM", "start 1", "end"], _text(output)


def _text(path):
    return path.read_text() if path.exists() else ""


def test_stop_ends_no_process_of_others(folder):
    other = subprocess.Popen(["sleep", "600"])
    try:
        (folder / "munged.pid").write_text(str(other.pid))  # as after a restart of the machine
        assert Cluster(folder).stop() == ()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_errors_say_what_to_do(folder, monkeypatch):
    monkeypatch.setattr(slurm_cluster, "check_machine", lambda: None)
    (folder / "file").touch()
    with pytest.raises(ClusterError, match="not empty"):
        Cluster(folder).start()
    with pytest.raises(ClusterError, match=f"longer than {LONGEST_FOLDER}"):
        Cluster(folder / ("x" * LONGEST_FOLDER)).start()
    monkeypatch.undo()
    monkeypatch.setattr(slurm_cluster.shutil, "which", lambda name, path: None if name == "munged" else name)
    with pytest.raises(ClusterError, match=r"apt-get install --no-install-recommends munge$"):
        check_machine()
    monkeypatch.setattr(slurm_cluster.shutil, "which", lambda name, path: name)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="root"):
        check_machine()


def test_a_daemon_that_does_not_start_leaves_none(machine, folder, monkeypatch):
    monkeypatch.setattr(slurm_cluster, "CONF", slurm_cluster.CONF + "NoSuchKey=1\n")
    here = Cluster(folder)
    with pytest.raises(ClusterError, match="NoSuchKey"):
        here.start()
    assert not [path for path in folder.glob("*.pid") if alive(int(path.read_text()))]
