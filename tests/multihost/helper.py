"""Processes of one run on this machine, over loopback."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lm.train.rows import read

ROOT = Path(__file__).parents[2]
PATIENCE = 400.0  # seconds on a busy machine; a start takes five on a quiet one
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"  # as in conftest, but for the devices


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(index: int, count: int, port: int, *command: str, **environment: str) -> subprocess.Popen:
    joined = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(count)}
    usual = {"JAX_PROCESS_ID": str(index), "XLA_FLAGS": FLAGS, "PYTHONPATH": str(ROOT), "LM_PEER_TIMEOUT": "60"}
    child = [sys.executable, str(Path(__file__).with_name("child.py")), *command]
    return subprocess.Popen(
        child,
        env=os.environ | {"NPROC": "16"} | joined | usual | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def processes(
    count: int, config: Path, folder: Path, mesh: str, slow: Sequence[float] = (0.0,), **environment: str
) -> Iterator[list[subprocess.Popen]]:
    """`count` processes that train the run of the folder `config` in `folder`. slow: of each, or of all."""
    port, command = free_port(), ["train", str(config), "--out", str(folder), "--mesh", mesh, "--quiet"]
    pause = list(slow) * (count if len(slow) == 1 else 1)
    started = [start(i, count, port, *command, SLOW=str(pause[i]), **environment) for i in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


def wait_for_rows(folder: Path, count: int, started: list[subprocess.Popen]) -> None:
    """Until the run has `count` rows of training."""
    deadline = time.monotonic() + PATIENCE
    while len(trained(folder)) < count:
        ended = [process for process in started if process.poll() is not None]
        assert not ended, f"ended before it was disturbed: {[said(process) for process in ended]}"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def trained(folder: Path) -> dict[int, float]:
    """Step -> loss. A step that has two rows is an error."""
    rows = [row for row in read(folder / "rows.jsonl") if row["split"] == "train"]
    found = {row["step"]: row["loss"] for row in rows}
    assert len(found) == len(rows)
    return found


def said(process: subprocess.Popen, seconds: float = PATIENCE) -> str:
    """What it wrote to stderr, once it has ended."""
    return process.communicate(timeout=seconds)[1]
