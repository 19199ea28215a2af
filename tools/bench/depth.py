"""Compile time over depth: a training step of 24 layers against one of 2, scanned and written out.

python tools/bench/depth.py [--json FILE] [--rounds 5] [--quick]

Tracing and compiling, nothing cached, in turns in one process. Scanned layers are compiled once however many there are,
so their ratio should be near 1; written out it grows with the depth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import harness
import numpy as np

DEPTHS = (2, 24)
SIZES = {"width": 256, "heads": 4, "vocab": 256}
QUICK = {"width": 16, "heads": 2, "vocab": 32}


def seconds(depth: int, layers: Any, sizes: dict[str, int], length: int) -> float:
    """To trace and compile one training step."""
    import jax

    from lm import sharding
    from lm.models import Execution
    from lm.models.presets import llama_style
    from lm.train.run import Training
    from lm.train.step import Program

    jax.clear_caches()
    model = llama_style(sizes["width"], depth, heads=sizes["heads"], vocab=sizes["vocab"])
    program = Program(model, Training(steps=100, execution=Execution(layers=layers)), sharding.layout())
    rows = {name: np.zeros((4, length), np.int32) for name in ("tokens", "targets", "positions", "segments")}
    batch = program.layout.put({**rows, "weights": np.ones((4, length), np.float32)})
    began = time.perf_counter()
    program.step.lower(program.abstract_state(), batch, {}).compile()
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny cases, to see that everything works")
    options = parser.parse_args(arguments)
    rounds, sizes, length = (1, QUICK, 16) if options.quick else (options.rounds, SIZES, 256)
    cases = [(layers, depth) for layers in ("scan", "unroll") for depth in DEPTHS]
    numbers: dict[str, list[float]] = {f"{layers}, {depth} layers": [] for layers, depth in cases}
    for turn in range(rounds + 1):
        for layers, depth in cases:
            found = seconds(depth, layers, sizes, length)
            if turn:  # the first of each also imports and starts what the others find ready
                numbers[f"{layers}, {depth} layers"].append(found)
    rows = []
    for layers in ("scan", "unroll"):
        few, many = (numbers[f"{layers}, {depth} layers"] for depth in DEPTHS)
        ratios = [b / a for a, b in zip(few, many, strict=True)]
        rows.append(
            {
                "layers": layers,
                f"{DEPTHS[0]} layers, s": f"{harness.spread(few):.2f}",
                f"{DEPTHS[1]} layers, s": f"{harness.spread(many):.2f}",
                "ratio": f"{harness.spread(ratios):.2f}",
            }
        )
    harness.write(options.json, rows, numbers)


if __name__ == "__main__":
    main()
