"""A training step on eight virtual devices: bytes of each, what they exchange, and how long it takes to compile.

python tools/bench/scale.py [--json FILE] [--rounds 3] [--quick]
python tools/bench/scale.py --golden

--golden counts the collectives anew and writes them to tests/sharding/golden, which a test compares with.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

import collectives
import harness

DEVICES = (1, 2, 4, 8)
SIZES = {"width": 256, "heads": 4, "vocab": 256}
QUICK = {"width": 16, "heads": 2, "vocab": 32}
MESHES = {"one device": "", "fsdp": "fsdp=8", "fsdp_tp": "data=2,fsdp=2,tensor=2"}  # what is compiled
AT_MOST = 1.5  # times as long as for one device


def eight() -> None:
    """Has JAX see eight devices; before it is imported."""
    os.environ.setdefault("NPROC", "16")  # jax 0.10 and 0.11 can deadlock with many virtual devices on few cores
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()


def program(layers: int, sizes: dict[str, int], mesh: str) -> Any:
    from lm.models import Execution
    from lm.models.presets import llama_style
    from lm.sharding import layout
    from lm.train.run import Training
    from lm.train.step import Program

    model = llama_style(sizes["width"], layers, heads=sizes["heads"], vocab=sizes["vocab"])
    return Program(model, Training(steps=100, execution=Execution(layers="scan")), layout(mesh))


def memory(sizes: dict[str, int]) -> list[dict[str, Any]]:
    """Bytes of parameters and optimizer on the fullest device, by what lies there."""
    import jax
    import numpy as np

    found: list[dict[str, Any]] = []
    for count in DEVICES:
        abstract = program(4, sizes, f"fsdp={count}").abstract_state()
        state = jax.tree.map(lambda s: jax.device_put(np.zeros(s.shape, s.dtype), s.sharding), abstract)
        held: dict[str, int] = {}
        for leaf in jax.tree.leaves((state.params, state.opt)):
            for shard in leaf.addressable_shards:
                held[str(shard.device)] = held.get(str(shard.device), 0) + shard.data.nbytes
        assert len(held) == count
        found.append({"mesh": f"fsdp={count}", "bytes": max(held.values())})
    for row in found:
        row["part"] = row["bytes"] / found[0]["bytes"]
    return found


def seconds(mesh: str, layers: int, sizes: dict[str, int], length: int) -> float:
    """To trace and compile one training step."""
    import jax
    import numpy as np

    jax.clear_caches()
    made = program(layers, sizes, mesh)
    rows = {name: np.zeros((8, length), np.int32) for name in ("tokens", "targets", "positions", "segments")}
    batch = made.layout.put({**rows, "weights": np.ones((8, length), np.float32)})
    began = time.perf_counter()
    made.step.lower(made.abstract_state(), batch, {}).compile()
    return time.perf_counter() - began


def compiling(rounds: int, layers: int, sizes: dict[str, int], length: int) -> dict[str, list[float]]:
    """Seconds of each mesh, in turns."""
    found: dict[str, list[float]] = {name: [] for name in MESHES}
    for turn in range(rounds + 1):
        for name, mesh in MESHES.items():
            took = seconds(mesh, layers, sizes, length)
            if turn:  # the first of each also imports and starts what the others find ready
                found[name].append(took)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny cases, to see that everything works")
    parser.add_argument("--golden", action="store_true", help="only count the collectives, and keep them for the test")
    options = parser.parse_args(arguments)
    eight()
    cases = collectives.CASES[:1] if options.quick else collectives.CASES
    if options.golden:
        collectives.keep({case.rules: collectives.measured(case) for case in collectives.CASES})
        print(f"written: {collectives.GOLDEN}")
        return
    rounds, layers, sizes, length = (1, 2, QUICK, 16) if options.quick else (options.rounds, 24, SIZES, 256)
    held = memory(sizes)
    exchanged = {case.rules: collectives.measured(case) for case in cases}
    compiled = compiling(rounds, layers, sizes, length)
    tables = {
        "parameters and optimizer, of each device": [
            {"mesh": row["mesh"], "bytes": f"{row['bytes']:,}", "of one device's": f"{row['part']:.4f}"} for row in held
        ],
        "collectives of a step, bytes that one device sends": collectives.rows(exchanged),
        f"seconds to compile a step of {layers} scanned layers": [
            {
                "": name,
                "seconds": f"{harness.spread(took):.2f}",
                "ratio": f"{harness.spread([a / b for a, b in zip(took, compiled['one device'], strict=True)]):.2f}",
                "at most": AT_MOST if name != "one device" else "",
            }
            for name, took in compiled.items()
        ],
    }
    print(", ".join(f"{k} {v}" for k, v in harness.machine().items()))
    for title, rows in tables.items():
        print(f"\n{title}\n\n{harness.table(rows)}")
    if options.json:
        harness.save(options.json, {"memory": held, "collectives": exchanged, "compile": compiled})


if __name__ == "__main__":
    main()
