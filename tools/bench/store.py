"""How long the results store takes to answer, over a made-up store of many runs: 10,000 of 1,000 steps by default.

python tools/bench/store.py [--json FILE] [--repeats 5] [--runs 10000] [--steps 1000] [--within FOLDER] [--quick]

The store takes 0.4 MB of disk a run, while this lasts. "from disk": after the system forgot what is in the files.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness

from lm.config import to_dict
from lm.models import Decoder
from lm.nn import MLP, Block, mha
from lm.sweep import store
from lm.train import Run, Training
from lm.train.folder import RunFolder
from lm.train.lock import NAME
from lm.train.spaced import log_spaced

BODIES = 16  # different files of rows, that runs take in turns
EXPERIMENTS = 4
RATE = "train.optimizer.learning_rate"
QUERIES = {
    "select id, min(loss)": "select id, min(loss) as least from rows group by id",
    "held-out curves by arm": "select arm, step, avg(loss) from rows join runs using (id) "
    "where split = 'heldout' group by arm, step",
    "runs by status": "select experiment, status, count(*) from runs group by all",
}


def rows_of(seed: int, steps: int) -> list[dict[str, Any]]:
    """The rows of a run that writes one a step, with the names and digits that training writes."""
    draw, evaluated = random.Random(seed), set(log_spaced(steps, 1))
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = 1.5 + 4.5 / math.sqrt(step) + draw.gauss(0, 0.05)
        measured = {"loss": loss, "accuracy": draw.random(), "bits_per_byte": loss / math.log(2)}
        norms = {
            name: draw.uniform(0.1, 10) for name in ("gradient_norm", "parameter_norm", "update_norm", "objective")
        }
        speed = {name: draw.uniform(0.1, 1e4) for name in ("seconds", "tokens_per_second", "mfu")}
        rate = {"learning_rate": draw.uniform(1e-5, 1e-3)}
        rows.append({"step": step, "split": "train", **measured, **norms, **rate, **speed, "tokens": step * 4096})
        if step in evaluated:
            rows.append({"step": step, "split": "heldout", **measured, "evaluated": 65536, "tokens": step * 4096})
    return rows


def make(results: Path, runs: int, steps: int) -> tuple[dict[str, float], int]:
    """Writes a store. Returns the least loss of each run, and the bytes of all rows. Two runs in 100 aren't done."""
    model = Decoder(vocab=256, width=128, layers=4, block=Block(mixer=mha(8), ff=MLP(hidden=512)))
    run = Run(model=model, train=Training(steps=steps))
    config, cost = to_dict(run), model.cost(run.data.length)
    sizes = {"params": cost.params, "non_embedding": cost.non_embedding, "tokens": run.tokens, "flops": run.flops}
    bodies = [rows_of(seed, steps) for seed in range(BODIES)]
    texts = ["".join(json.dumps(row) + "\n" for row in body).encode() for body in bodies]
    least, manifests = {}, [[] for _ in range(EXPERIMENTS)]
    for number in range(runs):
        body, name, seed = bodies[number % BODIES], f"{number:016x}", number % 4
        folder = RunFolder(results / "runs" / name)
        folder.path.mkdir(parents=True)
        folder.rows.write_bytes(texts[number % BODIES])
        (folder.path / NAME).touch()
        (folder.path / "config.json").write_text(json.dumps(config))
        if number % 100 == 0:
            (folder.path / "failure.json").write_text(json.dumps({"error": "loss is nan at step 7"}))
        elif number % 100 > 1:
            loss = body[-1]["loss"]
            numbers = {"heldout_loss": loss, "heldout_bpb": loss / math.log(2), "seconds": 60.0 + number}
            (folder.path / "result.json").write_text(
                json.dumps(numbers | {"tokens_per_second": 1e4, **sizes}, indent=2)
            )
        least[name] = min(row["loss"] for row in body)
        labels = {"id": name, "group": f"{number % 8:016x}", "arm": f"arm {number // 4 % 10}", "seed": seed}
        point = {RATE: 1e-4 * (1 + number // 4)}
        row = labels | sizes | {"point": point, "memory": 1 << 30, "data": "0" * 16, "config": config | {"seed": seed}}
        manifests[number * EXPERIMENTS // runs].append(json.dumps(row) + "\n")
    for number, lines in enumerate(manifests):
        (results / f"experiment_{number}").mkdir()
        (results / f"experiment_{number}" / "manifest.jsonl").write_text("".join(lines))
    return least, sum(len(texts[number % BODIES]) for number in range(runs))


def forget(results: Path) -> None:
    """Lets the system drop the files from its memory."""
    os.sync()
    for path in results.rglob("*.json*"):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def check(results: Path, least: dict[str, float]) -> None:
    """The answers are right: a wrong one is not worth timing."""
    found = store.query(QUERIES["select id, min(loss)"], results).set_index("id")["least"]
    assert found.to_dict() == least
    assert len(store.results(results)) == len(least)


def measure(work: Callable[[], object], before: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall clock, and of processor time over all threads."""
    before()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=1000, help="rows of training metrics a run")
    parser.add_argument("--within", metavar="FOLDER", help="where the store is made, if not with temporary files")
    parser.add_argument("--quick", action="store_true", help="100 runs of 100 steps, twice: to see that it works")
    options = parser.parse_args()
    runs, steps, repeats = (100, 100, 2) if options.quick else (options.runs, options.steps, options.repeats)
    with tempfile.TemporaryDirectory(prefix="store-", dir=options.within) as folder:
        results = Path(folder)
        least, size = make(results, runs, steps)
        check(results, least)
        questions: dict[str, Callable[[], object]] = {"results()": lambda: store.results(results)}
        questions |= {name: lambda sql=sql: store.query(sql, results) for name, sql in QUERIES.items()}
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(repeats):  # questions take turns, so that a slow minute hits all of them
            for name, work in questions.items():
                for state, before in (("from disk", lambda: forget(results)), ("in memory", lambda: None)):
                    found.setdefault((name, state), []).append(measure(work, before))
    about = {"runs": runs, "steps": steps, "GB of rows": round(size / 1e9, 3)}
    rows = []
    numbers = []
    for (name, state), times in found.items():
        wall, cpu = map(list, zip(*times, strict=True))
        shown = {"seconds": f"{harness.spread(wall):.2f}", "CPU seconds": f"{harness.spread(cpu):.2f}"}
        parsed = f"{size / 1e6 / harness.spread(wall).median:,.0f}" if "rows" in QUERIES.get(name, "") else ""
        rows.append({"question": name, **about, "files": state, **shown, "MB of rows a second": parsed})
        numbers.append({"question": name, "files": state, **about, "seconds": wall, "cpu": cpu})
    harness.write(options.json, rows, numbers)


if __name__ == "__main__":
    main()
