"""What the time of a training step is spent on, by part of the model and by kind of operation.

python tools/bench/profile_step.py [--case "GPT L4 d128"] [--kernels auto|plain] [--json FILE]

Takes a trace of some steps with JAX's profiler and adds up each compiled operation under the name it got when the
model was traced. Operations run side by side on several threads, so shares are of busy time, not of the clock.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import harness
import jax
import numpy as np
import train

PARTS = ("attend", "mixer", "ff", "norm", "head", "update")  # scopes; of nested ones the innermost counts
KINDS = {  # the first that is found in an operation's own name or source
    "matrix product": r"dot_general",
    "copies and transposes": r"copy|transpose|slice|pad|concatenate",
    "reductions": r"reduce",
    "exponential, tanh": r"exp|tanh|logistic",
}
ELEMENTWISE = "other elementwise"


def operations(hlo: str) -> dict[str, tuple[str, str]]:
    """Name of each operation of a compiled program -> (part of the model, kind)."""
    found = {}
    for line in hlo.splitlines():
        match = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", line)
        if match and not re.match(r"while|call|conditional", match.group(1)):  # their time is that of what they hold
            source = re.search(r'op_name="([^"]*)"', line)
            path = source.group(1) if source else ""
            name = match.group(1)
            scopes = [part for part in re.split(r"[/()]+", path) if part in PARTS]
            last = path.rsplit("/", 1)[-1]
            kind = next(
                (k for k, pattern in KINDS.items() if re.search(pattern, f"{name} {last}")), "other elementwise"
            )
            found[name] = (scopes[-1] if scopes else "embedding, loss, other", kind)
    return found


def milliseconds(trace: Path, known: set[str], steps: int) -> Counter[str]:
    """Busy milliseconds a step of each operation, from a profiler's folder."""
    (file,) = trace.glob("**/*.xplane.pb")
    spent: Counter[str] = Counter()
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in known:
                    spent[event.name] += event.duration_ns / 1e6 / steps
    return spent


def profile(case: train.Case, kernels: str, steps: int = 5) -> tuple[Counter[tuple[str, str]], float]:
    """Busy milliseconds a step by (part, kind), and the memory of temporaries in MB. One dispatch of `steps` steps."""
    compiled, batch, values = train.prepared(case, kernels)
    stacked = {name: np.stack([each] * steps) for name, each in batch.items()}
    rest = (compiled.layout.put(stacked, stacked=True), steps, values)
    program = compiled.steps.lower(compiled.abstract_state(), *rest).compile()
    state, metrics = program(compiled.init(0), *rest)
    jax.block_until_ready(metrics)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            state, metrics = program(state, *rest)
            jax.block_until_ready(metrics)
        known = operations(program.as_text())
        spent: Counter[tuple[str, str]] = Counter()
        for name, ms in milliseconds(Path(folder), set(known), steps).items():
            spent[known[name]] += ms
    return spent, program.memory_analysis().temp_size_in_bytes / 1e6


def rows_of(spent: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    total = sum(spent.values())
    kinds = [*KINDS, ELEMENTWISE]
    rows: list[dict[str, Any]] = []
    for part in sorted({part for part, _ in spent}, key=lambda p: -sum(spent[p, k] for k in kinds)):
        whole = sum(spent[part, kind] for kind in kinds)
        rows.append(
            {"part": part, **{kind: f"{spent[part, kind]:.1f}" for kind in kinds}, "share": f"{whole / total:.0%}"}
        )
    sums = {kind: sum(ms for (_, k), ms in spent.items() if k == kind) for kind in kinds}
    return [*rows, {"part": "all", **{kind: f"{ms:.1f} ({ms / total:.0%})" for kind, ms in sums.items()}, "share": ""}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="GPT L4 d128", help="a part of the name of one of train.py's cases")
    parser.add_argument("--kernels", default="auto", choices=("auto", "plain"))
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    name = next(name for name in (train.CASES | train.QUICK) if options.case in name)
    spent, temporaries = profile((train.CASES | train.QUICK)[name], options.kernels)
    print(f"{name}, {options.kernels} kernels: busy milliseconds a step; {temporaries:.0f} MB of temporaries")
    harness.write(options.json, rows_of(spent), [[*key, ms] for key, ms in spent.most_common()])


if __name__ == "__main__":
    main()
