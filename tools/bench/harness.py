"""What every benchmark here shares: contestants that take turns, a table, and a file that says where it was measured.

A contestant is a process of its own, with its own libraries and memory, that does one chunk of work when told. Chunks
of all contestants alternate, so that what else the machine does hits all of them, and a ratio is taken inside a round.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lm import launch

LIBRARIES = ("jax", "flax", "torch", "transformers", "numpy", "grain", "pandas", "duckdb")


@dataclass(frozen=True)
class Chunk:
    """One turn: seconds of wall clock and of processor time, and the process's largest memory during it, in bytes."""

    wall: float
    cpu: float
    memory: int


@dataclass(frozen=True)
class Spread:
    """Median, least and largest of some numbers."""

    median: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def ratio(faster: Sequence[Chunk], slower: Sequence[Chunk]) -> Spread:
    """How many times as fast `faster` was, round by round."""
    return spread([b.wall / a.wall for a, b in zip(faster, slower, strict=True)])


# ---- contestants -----------------------------------------------------------------------------------------------


class Contestant:
    """A process that runs `command` and answers each line "go" with a chunk; its first line says that it is ready."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        env = {**os.environ, "GLIBC_TUNABLES": launch.ALLOCATOR, **(environment or {})}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.facts: dict[str, Any] = self._answer()

    def go(self) -> Chunk:
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        return Chunk(**self._answer())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a contestant ended with code {self.process.wait()}: {' '.join(self.process.args)}")  # type: ignore[arg-type]
        return json.loads(line)


def serve(work: Callable[[], object], facts: Mapping[str, Any], warm: Callable[[], object] | None = None) -> None:
    """The contestant's side: says `facts`, then does `work` for every line that comes in.

    warm: done before each `work` and not counted: what a process had while the others took their turns, caches and on
    a virtual machine even memory, comes back first.
    """
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    work()  # compiles, or fills what is filled once
    launch.give_back()
    print(json.dumps(dict(facts)), file=answers, flush=True)
    for _ in sys.stdin:
        if warm is not None:
            warm()
        _forget_peak()
        wall, cpu = time.perf_counter(), _processor_time()
        work()
        chunk = Chunk(time.perf_counter() - wall, _processor_time() - cpu, _peak_memory())
        print(json.dumps(vars(chunk)), file=answers, flush=True)


def take_turns(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, list[Chunk]]:
    """`rounds` chunks of each, in turns that begin with another one each time."""
    chunks: dict[str, list[Chunk]] = {name: [] for name in contestants}
    names = list(contestants)
    for name in names:
        contestants[name].go()  # not counted: clocks and caches settle
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            chunks[name].append(contestants[name].go())
    return chunks


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _forget_peak() -> None:
    """Lets the kernel count the largest memory anew, so that compiling doesn't count as training."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def _peak_memory() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


# ---- what is written down --------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    about = {"cpu": model, "cores": str(cores), "system": platform.system(), "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            about[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return about | {"commit": _commit()}


def _commit() -> str:
    """The commit of the code that ran, with a mark where files differ from it."""
    here = Path(__file__).parent
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=here, capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return said.stdout.strip() or "unknown"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same columns as a Markdown table."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(row[c]) for c in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(path: str | None, rows: Sequence[Mapping[str, Any]], numbers: Any) -> None:
    """Prints the machine and the table; with a path, writes machine, command, table and all numbers there as JSON."""
    print(", ".join(f"{k} {v}" for k, v in machine().items()))
    print(table(rows))
    if path is not None:
        save(path, numbers)


def save(path: str, numbers: Any) -> None:
    """Writes the numbers as JSON, with machine, versions, commit and command."""
    found = {"machine": machine(), "command": sys.argv, "numbers": numbers}
    Path(path).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
