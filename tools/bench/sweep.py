"""What a sweep costs beside its training steps: compilation, its own layer, a worker's start; and runs as one program.

PYTHONPATH=. python tools/bench/sweep.py [--json FILE] [--rounds 3] [--only share overhead start together] [--quick]

share: 8 runs that differ in learning rate and seed, in one process, against 8 processes, none with anything compiled
before, and against 8 times one run more in that process. overhead: everything but the training steps of a run of about
a minute in a process that has its program (one evaluation of 32 rows and one checkpoint at its end are in it). start: a
worker with its programs in the compile cache, from its start to the first row. together: R runs as one program against
one after another.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

from lm import data, launch

RUNS = 8
SIZES = {"L2 d64": (2, 64, 128, 8), "L4 d128": (4, 128, 256, 8)}  # layers, width, length, rows
GPU_SIZES = {"L4 d128 (0.8M)": (4, 128, 256, 8), "L6 d256 (5M)": (6, 256, 256, 16), "L8 d512 (25M)": (8, 512, 512, 16)}


def run_of(size: tuple[int, int, int, int], steps: int, number: int = 0) -> Any:
    from lm.models import Decoder
    from lm.nn import Block, gqa, swiglu
    from lm.train import AdamW, Recording, Run, Training

    layers, width, length, rows = size
    block = Block(mixer=gqa(max(2, width // 32), kv_heads=max(2, width // 32)), ff=swiglu(width * 8 // 3 // 8 * 8))
    return Run(
        model=Decoder(vocab=256, width=width, layers=layers, block=block),
        data=data.Data(length=length, batch=rows),
        train=Training(steps=steps, optimizer=AdamW(learning_rate=1e-3 * (1 + number))),
        record=Recording(evaluations=0, heldout_rows=32),
        seed=number,
    )


# ---- in processes of their own ---------------------------------------------------------------------------------


def child(asked: dict[str, Any]) -> dict[str, Any]:
    """What a process measures of itself."""
    launch.prepare_jax()
    from lm.train.lane import Machine
    from lm.train.loop import train

    machine, folder, size = Machine(quiet=True), Path(asked["folder"]), tuple(asked["size"])
    times = []
    for number in asked["numbers"]:
        began = time.perf_counter()
        result = train(run_of(size, asked["steps"], number), folder / str(number), machine)
        times.append({"wall": time.perf_counter() - began, "steps": result["seconds"]})
    from lm.config import lift
    from lm.train.step import program

    run = run_of(size, asked["steps"])
    compiled = program(run.model, lift(run.train)[0], machine.layout)
    steps: Any = compiled.steps if run.steps_at_once > 1 else compiled.step
    return {"runs": times, "compiled": steps._cache_size(), "at_once": run.steps_at_once}


def process(asked: dict[str, Any], cache: str) -> tuple[float, dict[str, Any]]:
    """Seconds that a new process takes, and what it found."""
    environment = {
        **os.environ,
        "GLIBC_TUNABLES": launch.ALLOCATOR,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, __file__, "--child", json.dumps(asked)]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"a process failed:\n{done.stderr}")
    return seconds, json.loads(done.stdout.splitlines()[-1])


# ---- the four measurements -------------------------------------------------------------------------------------


def share(size: str, steps: int, rounds: int) -> tuple[dict[str, Any], Any]:
    """One process with one executable against a process a run."""
    numbers: list[dict[str, Any]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            asked = {"size": SIZES[size], "steps": steps}
            cold = [
                process({**asked, "folder": str(root / f"cold{n}"), "numbers": [n]}, str(root / f"cache{n}"))[0]
                for n in range(RUNS)
            ]
            both = {**asked, "folder": str(root / "one"), "numbers": list(range(RUNS + 1))}
            whole, found = process(both, str(root / "cache"))
            runs = [each["wall"] for each in found["runs"]]
            numbers.append({"cold": cold, "one": whole - runs[-1], "runs": runs, "compiled": found["compiled"]})
    against_cold = harness.spread([n["one"] / sum(n["cold"]) for n in numbers])
    # the first run compiles; the others, against as many times the one after them
    warm = harness.spread([sum(n["runs"][1:RUNS]) / (RUNS - 1) / n["runs"][RUNS] for n in numbers])
    row = {
        "what": f"{RUNS} runs of {steps} steps, {size}",
        "one process, s": f"{harness.spread([n['one'] for n in numbers]):.1f}",
        "a process each, s": f"{harness.spread([sum(n['cold']) for n in numbers]):.1f}",
        "ratio": f"{against_cold:.2f}",
        "a run among them / one more": f"{warm:.2f}",
        "executables of the step": max(n["compiled"] for n in numbers),
    }
    return row, numbers


def overhead(size: str, steps: int, rounds: int) -> tuple[dict[str, Any], Any]:
    """What isn't training steps in a run whose program is there."""
    with tempfile.TemporaryDirectory() as temporary:
        asked = {"size": SIZES[size], "steps": steps, "folder": temporary, "numbers": list(range(rounds + 1))}
        _, found = process(asked, os.environ.get("JAX_COMPILATION_CACHE_DIR", str(Path(temporary) / "cache")))
    timed = steps - found["at_once"]  # the first dispatch only starts the clock
    rest = [1 - each["steps"] / timed * steps / each["wall"] for each in found["runs"][1:]]
    row = {
        "what": f"{size}, {steps} steps",
        "a run, s": f"{harness.spread([each['wall'] for each in found['runs'][1:]]):.1f}",
        "not training steps, %": f"{harness.spread([100 * r for r in rest]):.2f}",
    }
    return row, found["runs"]


def start(size: str, steps: int, rounds: int) -> tuple[dict[str, Any], Any]:
    """From a worker's start to its first row."""
    from lm.sweep import Sweep, grid, manifest

    seconds = []
    with tempfile.TemporaryDirectory() as temporary:
        for turn in range(rounds + 1):
            results = Path(temporary) / str(turn)
            experiment = Sweep(base=run_of(SIZES[size], steps), points=grid({"seed": [turn]}))
            entries = manifest.manifest(experiment, results)
            manifest.write(entries, results / "bench" / "manifest.jsonl")
            command = [sys.executable, "-m", "lm", "sweep", "worker", str(results / "bench" / "manifest.jsonl")]
            began = time.perf_counter()
            worker = subprocess.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            rows = entries[0].folder.rows
            while not (rows.exists() and rows.stat().st_size) and worker.poll() is None:
                time.sleep(0.01)
            seconds.append(time.perf_counter() - began)
            worker.wait()
    row = {"what": f"worker, {size}", "start to the first row, s": f"{harness.spread(seconds[1:]):.1f}"}
    return row, seconds


def together(rounds: int) -> tuple[list[dict[str, Any]], Any]:
    """R runs as one program, for some sizes and R."""
    import jax

    from lm.sharding import layout
    from lm.sweep.vectorise import measure

    gpu = jax.default_backend() != "cpu"
    rows, numbers = [], []
    for name, size in (GPU_SIZES if gpu else SIZES).items():
        for count in (2, 4, 8, 16, 32) if gpu else (2, 8):
            runs = [run_of(size, 1000, n) for n in range(count)]
            found = [measure(runs, layout()) for _ in range(rounds)]
            ratio = harness.spread([f["together"] / f["alone"] for f in found])
            numbers.append({"size": name, "runs": count, "tokens/s": found})
            rows.append(
                {
                    "model": name,
                    "runs": count,
                    "one program, tokens/s": f"{harness.spread([f['together'] for f in found]):,.0f}",
                    "one after another": f"{harness.spread([f['alone'] for f in found]):,.0f}",
                    "ratio": f"{ratio:.2f}",
                    "device": jax.devices()[0].device_kind,
                }
            )
    return rows, numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=("share", "overhead", "start", "together"))
    parser.add_argument("--quick", action="store_true", help="few steps: to see that it works")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(json.loads(options.child))))
        return
    launch.prepare_jax()
    rounds = 1 if options.quick else options.rounds
    small, minute = (20, 20) if options.quick else (100, 400)
    parts: dict[str, Any] = {
        "share": lambda: share("L2 d64", small, rounds),
        "overhead": lambda: overhead("L2 d64" if options.quick else "L4 d128", minute, rounds),
        "start": lambda: start("L4 d128", 20, rounds),
        "together": lambda: together(rounds),
    }
    print(", ".join(f"{k} {v}" for k, v in harness.machine().items()))
    found = {}
    for name in options.only or parts:
        rows, found[name] = parts[name]()
        print(f"\n{harness.table(rows if isinstance(rows, list) else [rows])}", flush=True)
    if options.json:
        harness.save(options.json, found)


if __name__ == "__main__":
    main()
