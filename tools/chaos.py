"""Does a sweep survive? The same runs in this process, then by workers that are killed at random; the tables compared.

    PYTHONPATH=. python tools/chaos.py FOLDER [--runs 64] [--steps 60] [--rounds 50] [--on local slurm] [--seed 0]

In each round, after a random time, one of these is killed with signal 9: a worker, all workers, the process that waits
for them; on Slurm jobs are also preempted and queued again. At the end every run must have ended once: no row lost or
doubled, results and final parameters equal to those of the undisturbed sweep to the bit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TIMES = {"seconds", "tokens_per_second", "mfu"}
EXPERIMENT = '''"""Many small runs on the Python standard library: learning rate, weight decay, seeds."""

from lm.data import Data, Stdlib
from lm.models import Decoder
from lm.nn import MLP, Block, mha
from lm.sweep import Sweep, grid
from lm.train import Recording, Run, Training

RATES, DECAYS = [1e-3, 2e-3, 4e-3, 8e-3], [0.0, 0.1, 0.2, 0.4]

experiment = Sweep(
    base=Run(
        model=Decoder(vocab=256, width=32, layers=2, block=Block(mixer=mha(2), ff=MLP(hidden=64))),
        data=Data(corpus=Stdlib(), length=64, batch=8),
        train=Training(steps={steps}),
        record=Recording(every=5, heldout_rows=16, checkpoint_every=10),
    ),
    points=grid({{"train.optimizer.learning_rate": RATES, "train.optimizer.weight_decay": DECAYS}})[:{points}],
    seeds={seeds},
)
'''
PLACES = {"local": "Local", "slurm": "Slurm(partition='low', warning=10, minutes=30)"}


def write_experiment(folder: Path, runs: int, steps: int) -> Path:
    """An experiment of `runs` runs: up to 16 settings, each with as many seeds as that takes."""
    points = next(n for n in range(min(runs, 16), 0, -1) if runs % n == 0)
    path = folder / "many.py"
    path.write_text(EXPERIMENT.format(steps=steps, points=points, seeds=runs // points))
    return path


class Disturbed:
    """A sweep run by workers somewhere, and what is done to it."""

    def __init__(self, place: str, experiment: Path, workers: int, rng: random.Random) -> None:
        self.place, self.experiment, self.rng = place, experiment, rng
        self.results = experiment.parent / place
        options = ["--on", PLACES[place], "--workers", str(workers), "--tries", "1000000", "--together", "never"]
        named = [sys.executable, "-m", "lm", "sweep", "run", experiment.name, "--results", place]
        self.command = [*named, *options]
        self.done: dict[str, int] = {}

    def run(self, rounds: int, limit: float) -> dict[str, int]:
        """Runs the sweep to its end, disturbing it `rounds` times on the way; how often what was done."""
        deadline = time.monotonic() + limit
        self.start()
        while self.scheduler.poll() is None or self.killed:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.place}: not done after {limit:.0f} s, {self.done}")
            time.sleep(self.rng.uniform(0.3, 4.0))
            if self.killed:
                self.start()
            elif sum(self.done.values()) < rounds and self.scheduler.poll() is None:
                self.disturb()
        if self.scheduler.returncode:
            raise RuntimeError(f"{self.place}: {' '.join(self.command)} ended with code {self.scheduler.returncode}")
        return self.done

    def start(self) -> None:
        with (self.experiment.parent / f"{self.place}.log").open("ab") as log:
            self.scheduler = subprocess.Popen(self.command, cwd=self.experiment.parent, stdout=log, stderr=log)
        self.killed = False

    def disturb(self) -> None:
        ways = [self.kill_worker, self.kill_worker, self.kill_all, self.kill_scheduler]
        if self.place == "slurm":
            ways += [self.preempt, self.requeue]
        way = self.rng.choice(ways)
        if way():
            self.done[way.__name__] = self.done.get(way.__name__, 0) + 1

    def workers(self) -> list[int]:
        """Processes that work on this sweep: their command line names its manifest."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if "worker" in words and str(self.results) in " ".join(words):
                        found.append(int(entry.name))
        return found

    def kill_worker(self) -> bool:
        found = self.workers()
        return kill(self.rng.sample(found, min(1, len(found))))

    def kill_all(self) -> bool:
        return kill(self.workers())

    def kill_scheduler(self) -> bool:
        self.scheduler.kill()
        self.scheduler.wait()
        self.killed = True
        return True

    def preempt(self) -> bool:
        """A job that needs both nodes for a moment and may take them."""
        done = subprocess.run(
            ["sbatch", "-p", "high", "-N", "2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2"],
            capture_output=True,
            cwd=self.experiment.parent,
        )
        return done.returncode == 0

    def requeue(self) -> bool:
        jobs = subprocess.run(
            ["squeue", "-h", "-r", "-p", "low", "-t", "R", "-o", "%A"], capture_output=True, text=True
        )
        running = jobs.stdout.split()
        return bool(running) and not subprocess.run(["scontrol", "requeue", self.rng.choice(running)]).returncode


def kill(pids: list[int]) -> bool:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def table(results: Path) -> dict[str, Any]:
    """Everything of every run that must not depend on where and how often it was interrupted."""
    import jax
    import numpy as np

    import lm.train  # noqa: F401  (before lm.data, which it completes)
    from lm.train.load import load_run
    from lm.train.rows import read

    found = {}
    (path,) = results.glob("*/manifest.jsonl")
    for line in path.read_text().splitlines():
        folder = results / "runs" / json.loads(line)["id"]
        result = json.loads((folder / "result.json").read_text())
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in read(folder / "rows.jsonl")]
        arrays = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(load_run(folder).params))
        found[folder.name] = ({k: v for k, v in result.items() if k not in TIMES}, rows, arrays)
    return found


def check(reference: dict[str, Any], found: dict[str, Any]) -> None:
    """Raises AssertionError at the first difference."""
    assert found.keys() == reference.keys(), f"other runs: {found.keys() ^ reference.keys()}"
    for name, (result, rows, arrays) in reference.items():
        steps = [(row["step"], row["split"]) for row in found[name][1]]
        assert len(set(steps)) == len(steps), f"{name}: a row is doubled"
        assert found[name][1] == rows, f"{name}: other rows"
        assert found[name][0] == result, f"{name}: {found[name][0]} instead of {result}"
        assert found[name][2] == arrays, f"{name}: other parameters"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--on", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds that one sweep may take")
    asked = parser.parse_args(arguments)
    folder = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    experiment = write_experiment(folder, asked.runs, asked.steps)
    began = time.monotonic()
    inline = [sys.executable, "-m", "lm", "sweep", "run", experiment.name, "--results", "inline", "--together", "never"]
    subprocess.run([*inline, "--quiet"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    reference = table(folder / "inline")
    print(f"inline: {len(reference)} runs, {time.monotonic() - began:.0f} s", flush=True)
    for place in asked.on:
        began = time.monotonic()
        done = Disturbed(place, experiment, asked.workers, random.Random(asked.seed)).run(asked.rounds, asked.limit)
        seconds = time.monotonic() - began
        assert not asked.rounds or sum(done.values()), f"{place}: it ended before anything was done to it"
        check(reference, table(folder / place))
        what = ", ".join(f"{name} {count}" for name, count in sorted(done.items()))
        print(f"{place}: {len(reference)} runs, {seconds:.0f} s, equal to inline to the bit; {what}", flush=True)


if __name__ == "__main__":
    main()
