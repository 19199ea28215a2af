"""How many tokens a second the loader serves: the default corpus, bytes, rows of 256, through Grain.

python tools/bench/loader.py [--json FILE] [--repeats 7] [--batches 16 64 256]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator

import lm.data


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "grain")}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": model,
        "cores": str(cores),
        "system": platform.platform(),
        "python": platform.python_version(),
    } | versions


def measure(dataset: lm.data.Dataset, prefetch: int, workers: int, repeats: int, seconds: float) -> list[float]:
    """Tokens a second, once a repeat; a repeat lasts about `seconds`. The first batch isn't counted."""
    batches: Iterator = dataset.batches(prefetch=prefetch, workers=workers)
    next(batches)
    rates = []
    for _ in range(repeats):
        tokens, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            tokens += next(batches)["tokens"].size
        rates.append(tokens / spent)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a repeat")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256, 1024], help="rows a batch")
    parser.add_argument("--length", type=int, default=256)
    options = parser.parse_args()
    about, rows = machine(), []
    print(", ".join(f"{k} {v}" for k, v in about.items()))
    print(f"million tokens a second, median [lowest, highest] of {options.repeats} repeats of {options.seconds} s")
    print(f"{'batch':>6} {'length':>6} {'prefetch':>8} {'workers':>7} {'median':>8} {'lowest':>8} {'highest':>8}")
    for batch in options.batches:
        dataset = lm.data.load(lm.data.Data(batch=batch, length=options.length))
        for prefetch, workers in ((0, 0), (2, 1), (4, 2)):
            rates = measure(dataset, prefetch, workers, options.repeats, options.seconds)
            row = {"batch": batch, "length": options.length, "prefetch": prefetch, "workers": workers}
            row |= {"median": statistics.median(rates), "lowest": min(rates), "highest": max(rates), "repeats": rates}
            rows.append(row)
            speeds = " ".join(f"{row[k] / 1e6:8.1f}" for k in ("median", "lowest", "highest"))
            print(f"{batch:6} {options.length:6} {prefetch:8} {workers:7} {speeds}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"unit": "tokens/s", "machine": about, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
