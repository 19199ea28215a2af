"""How long a user waits: help, imports, and `lm train` until its first dispatch is done, compiled before or not.

PYTHONPATH=. python tools/bench/start.py [--json FILE] [--repeats 5] [--experiment FILE] [--quick]

Every measurement is a new process; corpus and bytecode are there already, as at anyone's second start. Seconds from
the start of the process (the launcher's second start included) to its end or to the end of the first dispatch.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness

TARGETS = {"lm --help": 0.5, "import lm, its commands and configs": 0.5, "warm": 4.0}
IMPORTS = {
    "import lm, its commands and configs": "import lm, lm.config, lm.cli",
    "import jax": "import jax",
    "import an experiment, JAX and all": "import experiments.attention_ablation",
    "import the trainer, JAX and all": "import lm.train.loop",
}


def child(arguments: list[str]) -> None:
    """The command `lm` with these arguments, ended where its first step is done."""
    from lm import launch

    def first_step_done() -> None:
        print("first step done", flush=True)
        os._exit(0)

    launch.give_back = first_step_done
    sys.argv = [__file__, *arguments]
    sys.orig_argv = [sys.executable, __file__, "--child", *arguments]
    launch.main()


def timed(command: Sequence[str], environment: dict[str, str], done: str | None = None) -> tuple[float, float]:
    """Seconds of wall clock and of processor time of a process. `done` must be the last line that it says."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode or (done is not None and not ended.stdout.rstrip().endswith(done)):
        raise SystemExit(f"{' '.join(command)} ended with code {ended.returncode}: {ended.stderr[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(experiment: str, changes: list[str], repeats: int, scratch: Path) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) seconds by what was done, one pair a repeat; the first round of all isn't counted."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "GLIBC_TUNABLES")}
    environment = {k: v for k, v in environment.items() if not k.startswith("JAX_")}
    environment |= {"LM_CACHE": str(scratch / "cache"), "PYTHONPYCACHEPREFIX": str(scratch / "bytecode")}
    training = [sys.executable, __file__, "--child", "train", experiment, *changes, "--quiet", "--out"]

    def start(compiled: bool) -> tuple[float, float]:
        shutil.rmtree(scratch / "run", ignore_errors=True)
        if not compiled:
            shutil.rmtree(scratch / "cache" / "xla", ignore_errors=True)
        return timed([*training, str(scratch / "run")], environment, "first step done")

    found: dict[str, list[tuple[float, float]]] = {}
    for turn in range(repeats + 1):
        times = {"lm --help": timed([sys.executable, "-m", "lm", "--help"], environment)}
        for name, code in IMPORTS.items():
            times[name] = timed([sys.executable, "-c", code], environment)
        times["cold"], times["warm"] = start(compiled=False), start(compiled=True)
        if turn:
            for name, pair in times.items():
                found.setdefault(name, []).append(pair)
    return found


def rows_of(found: dict[str, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    names = {"cold": "to the first step, nothing compiled", "warm": "to the first step, compiled before"}
    rows = []
    for name, pairs in found.items():
        wall, cpu = (harness.spread(column) for column in zip(*pairs, strict=True))
        target = f"{TARGETS[name]:.1f}" if name in TARGETS else ""
        rows.append({"": names.get(name, name), "seconds": f"{wall:.2f}", "CPU": f"{cpu:.2f}", "at most": target})
    return rows


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--experiment", default="experiments/attention_ablation.py")
    parser.add_argument("--quick", action="store_true", help="a tiny model, once: to see that it works")
    options = parser.parse_args()
    tiny = ["model.layers=1", "model.width=32", "model.block.ff.hidden=32", "data.batch=2", "data.length=16"]
    with tempfile.TemporaryDirectory() as scratch:
        repeats = 1 if options.quick else options.repeats
        found = measure(options.experiment, tiny if options.quick else [], repeats, Path(scratch))
    harness.write(options.json, rows_of(found), {name: [list(p) for p in pairs] for name, pairs in found.items()})


if __name__ == "__main__":
    main()
