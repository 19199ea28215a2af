"""How many tokens a second the loader serves: the default corpus, bytes, rows of 256, through Grain.

python tools/bench/loader.py [--json FILE] [--repeats 7] [--batches 16 64 256] [--demand 10000] [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import harness

import lm.data
from lm.data.dataset import DIRECT


def measure(dataset: lm.data.Dataset, prefetch: int, workers: int, repeats: int, seconds: float) -> list[float]:
    """Tokens a second, once a repeat; a repeat lasts about `seconds`. What Grain doesn't read isn't counted."""
    batches: Iterator = dataset.batches(prefetch=prefetch, workers=workers)
    for _ in range(DIRECT + 1):
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
    parser.add_argument("--demand", type=float, help="tokens/s that training takes, to say how many times that it is")
    parser.add_argument("--quick", action="store_true", help="one batch size, short repeats: to see that it works")
    options = parser.parse_args()
    batches, repeats, seconds = options.batches, options.repeats, options.seconds
    if options.quick:
        batches, repeats, seconds = [16], 2, 0.05
    rows, numbers = [], []
    for batch in batches:
        dataset = lm.data.load(lm.data.Data(batch=batch, length=options.length))
        for prefetch, workers in ((0, 0), (2, 1), (4, 2)):
            rates = measure(dataset, prefetch, workers, repeats, seconds)
            about = {"batch": batch, "length": options.length, "prefetch": prefetch, "workers": workers}
            served = harness.spread(rates)
            row = {**about, "million tokens/s": f"{harness.spread([r / 1e6 for r in rates]):.1f}"}
            if options.demand:
                row["times the demand"] = f"{served.median / options.demand:,.0f}"
            rows.append(row)
            numbers.append({**about, "tokens/s": rates})
    harness.write(options.json, rows, numbers)


if __name__ == "__main__":
    main()
