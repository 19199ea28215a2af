"""Processes find one another as each kind of cluster tells them to, agree, and hear why one of them can't go on."""

import json
import os
import socket
import subprocess
import sys

import pytest

from lm.train import hosts
from lm.train.hosts import JoinError
from lm.train.watch_peers import LOST
from tests.multihost.helper import FLAGS, PATIENCE, ROOT, free_port
from tools import slurm_cluster

NAME = socket.gethostname()
MEETS = """
import json, os, sys, time
from lm.train import hosts
hosts.join(distributed=True)
import jax
mine = jax.process_index()
found = [hosts.any_of(mine == 1), hosts.any_of(False), hosts.from_first(7 + mine), hosts.gather(mine + 0.25)]
print(json.dumps([mine, jax.process_count(), jax.device_count(), *found]), flush=True)
if "fail" in sys.argv:
    try:
        hosts.on_first(lambda: json.loads("no"))
    except Exception as error:
        print(type(error).__name__, hosts.agreed(error), error, flush=True)
    if mine == 1:
        hosts.end_unless_agreed(FileNotFoundError("there is no shard 17"))
    hosts.any_of(False)
if "stuck" in sys.argv and mine == 1:
    hosts.shared(OSError("the disk is gone"))
if ("stuck" in sys.argv and mine == 0) or ("hang" in sys.argv and mine == 1):
    time.sleep(1000)
if "hang" in sys.argv:
    hosts.any_of(False)
"""


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"NPROC": "16", "XLA_FLAGS": FLAGS, "PYTHONPATH": str(ROOT)} | more


def expected(index: int) -> list:
    return [index, 2, 2, True, False, 7, [0.25, 1.25]]


def ompi(index: int, port: int) -> dict[str, str]:
    """What mpirun sets, as far as it is looked at."""
    rank = {"OMPI_COMM_WORLD_RANK": str(index), "OMPI_COMM_WORLD_LOCAL_RANK": str(index), "OMPI_COMM_WORLD_SIZE": "2"}
    return {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911", "JAX_COORDINATOR_PORT": str(port), **rank}


def by_mpirun(*arguments: str, **more: str) -> tuple[list[subprocess.Popen], list[tuple[str, str]]]:
    """Two processes that have ended, and what each wrote to stdout and stderr."""
    port, command = free_port(), [sys.executable, "-c", MEETS, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [
        subprocess.Popen(command, env=environment(**ompi(i, port), **more), text=True, **pipes) for i in range(2)
    ]
    try:
        return started, [process.communicate(timeout=PATIENCE) for process in started]
    finally:
        for process in started:
            process.kill()


def test_they_meet_as_mpirun_says_and_one_tells_why_it_fails():
    started, words = by_mpirun("fail")
    for index, (out, _) in enumerate(words):
        first, second = out.splitlines()
        assert json.loads(first) == expected(index)
        why = "Expecting value: line 1 column 1 (char 0)"
        first = f"process 0 of 2 ({NAME}, pid {started[0].pid})"
        told = f"JSONDecodeError True {why}" if index == 0 else f"PeerFailed True {first} couldn't go on: {why}"
        assert second == told
    assert [process.returncode for process in started] == [LOST, 1], words
    assert "lm: process 1 of 2 (" in words[0][1]
    assert f"pid {started[1].pid}) couldn't go on: there is no shard 17; this one ends, too" in words[0][1]
    assert "FileNotFoundError: there is no shard 17" in words[1][1]


def test_one_with_an_error_does_not_wait_for_those_inside_a_collective():
    """It ends after LM_PEER_TIMEOUT, and they hear why, wherever they are."""
    started, words = by_mpirun("stuck", LM_PEER_TIMEOUT="5")
    assert [process.returncode for process in started] == [LOST, 1], words
    assert f"lm: process 1 of 2 ({NAME}, pid {started[1].pid}) couldn't go on: the disk is gone; this" in words[0][1]
    assert "OSError: the disk is gone" in words[1][1]


def test_one_that_does_not_come_is_named():
    started, words = by_mpirun("hang", LM_AGREE_TIMEOUT="10")
    assert f"lm: process 1 of 2 ({NAME}, pid {started[1].pid}) didn't come where all processes meet" in words[0][1]
    assert f"lm: process 0 of 2 ({NAME}, pid {started[0].pid}) is lost" in words[1][1]
    assert [process.returncode for process in started] == [LOST, LOST], words


def test_they_meet_as_a_real_slurm_says():
    try:
        slurm_cluster.check_machine()
    except slurm_cluster.ClusterError as error:
        pytest.skip(str(error))
    with slurm_cluster.cluster() as here:
        done = subprocess.run(
            ["srun", "-N2", "--ntasks-per-node=1", sys.executable, "-c", MEETS],
            # the cluster's nodes have names that only Slurm knows; all else is as JAX finds it
            env=here.environment() | environment(JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{free_port()}"),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(line) for line in done.stdout.splitlines()) == [expected(0), expected(1)]


def test_a_process_has_all_gpus_where_it_is_alone_on_its_machine(monkeypatch):
    for name in ("SLURM_STEP_TASKS_PER_NODE", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert hosts._local_devices() is None
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "1(x2)")
    assert hosts._local_devices() == [0, 1, 2, 3]
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "4(x2)")
    assert hosts._local_devices() is None
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "1")
    assert hosts._local_devices() == [0, 1, 2, 3]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hosts._local_devices() is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"JAX_COORDINATOR_ADDRESS": ""}, "needs JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0, got ''"),
        ({"JAX_COORDINATOR_ADDRESS": "n1"}, "got 'n1'"),
        ({"JAX_PROCESS_ID": ""}, "JAX_NUM_PROCESSES=2 needs JAX_PROCESS_ID"),
        ({"JAX_PROCESS_ID": "2"}, "from 0 to one below it"),
        ({"JAX_NUM_PROCESSES": ""}, "JAX_PROCESS_ID is set and JAX_NUM_PROCESSES isn't: set that too"),
        ({"JAX_NUM_PROCESSES": "", "JAX_PROCESS_ID": ""}, "JAX_COORDINATOR_ADDRESS is set and JAX_NUM_PROCESSES isn't"),
        ({"JAX_NUM_PROCESSES": "", "JAX_COORDINATOR_ADDRESS": ""}, "JAX_PROCESS_ID is set"),
        ({"LM_JOIN_TIMEOUT": "soon"}, "LM_JOIN_TIMEOUT=soon must be a number of seconds"),
    ],
)
def test_what_is_missing_is_said(monkeypatch, changes, words):
    monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda **_: pytest.fail("it would wait for others"))
    given = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    for name, value in (given | changes).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(JoinError, match=words):
        hosts.join()
