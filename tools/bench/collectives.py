"""The collectives of a training step, counted in the compiled program and by the textbook.

They are kept in tests/sharding/golden/collectives.json, so that a change that makes devices exchange more is seen:

    PYTHONPATH=. python tools/bench/scale.py --golden
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[2] / "tests" / "sharding" / "golden" / "collectives.json"
WIDTH, LAYERS, HEADS, VOCAB, ROWS, LENGTH = 32, 4, 4, 256, 16, 64  # a device's tokens are more than the width
EXPERTS, CHOSEN = 8, 2
FLOAT = 4  # bytes

Key = str  # a collective and the axes of the mesh that it runs over: "all-gather fsdp"
Found = dict[Key, tuple[float, float]]  # how many run in a step, and bytes that one device sends for them


@dataclass(frozen=True)
class Case:
    """A tiny decoder of scanned layers on eight devices."""

    rules: str
    mesh: str
    experts: bool = False


CASES = (
    Case("ddp", "data=8"),
    Case("fsdp", "fsdp=8"),
    Case("fsdp_tp", "data=2,fsdp=2,tensor=2"),
    Case("ep", "fsdp=2,expert=4", experts=True),
    Case("sp", "fsdp=2,sequence=4"),
    Case("sp_ulysses", "fsdp=2,sequence=4"),
    Case("pp", "fsdp=2,stage=4"),
)

TABLE = "the table's two gradients, as input and as head, are reduced one by one"
# where more is sent than by the textbook: how many times as much, and why
MORE: dict[tuple[str, Key], tuple[float, str]] = {
    ("ddp", "all-reduce data"): (1.14, TABLE),
    ("fsdp_tp", "all-reduce tensor"): (
        1.68,
        "the gradients by q, k and v, and by gate and up, are summed after it; XLA for TPUs does so before",
    ),
    ("ep", "all-to-all expert"): (4.01, "without a ragged form, room for all tokens at each of 4 owners"),
    ("sp", "all-reduce fsdp"): (1.14, TABLE),
    ("sp", "all-reduce sequence"): (1.28, TABLE),
    ("sp", "collective-permute sequence"): (
        1.92,
        "halves of rows change places for balance; a last turn brings them home",
    ),
    ("sp_ulysses", "all-reduce fsdp"): (1.14, TABLE),
    ("sp_ulysses", "all-reduce sequence"): (1.28, TABLE),
    ("pp", "all-reduce fsdp"): (7.6, "gradients are reduced in each iteration of the pipeline"),
    ("pp", "collective-permute stage"): (1.51, "two permutes backward for one forward"),
}


def step(case: Case) -> Any:
    """The case's training step, to be compiled for any layout."""
    from lm.models import Execution
    from lm.models.presets import llama_style
    from lm.models.presets.experts import with_experts
    from lm.plan.step import Step
    from lm.train import Training

    model = llama_style(WIDTH, LAYERS, heads=HEADS, vocab=VOCAB)
    model = with_experts(model, EXPERTS, CHOSEN) if case.experts else model
    return Step(model, Training(steps=1, execution=Execution(layers="scan")), ROWS, LENGTH)


def measured(case: Case) -> Found:
    """What the program compiled for eight devices of this machine has."""
    from lm.plan.hlo import traffic
    from lm.sharding import layout

    where = layout(case.mesh, case.rules)
    text = step(case).lowered(where).compile().as_text()
    rows = traffic(text, dict(where.mesh.shape))
    return {f"{r['kind']} {r['axes']}": (r["count"], r["bytes"]) for r in sorted(rows, key=lambda r: -r["bytes"])}


def textbook(case: Case) -> dict[Key, float]:
    """Bytes that one device sends in a step by the papers, in the forms that XLA has for CPUs.

    Weights that are split over devices with rows of their own are gathered for the forward and for the backward
    pass, and their gradients are reduced and scattered (ZeRO-3, Rajbhandari et al. 2020); for all but experts that
    is here an all-reduce, of twice the bytes, of which each device keeps its part. What is split otherwise, or not
    at all, has its gradient reduced to all that hold it. Layers split over "tensor" sum two activations forward and
    two backward, the token table one and the head one (Shoeybi et al. 2019). Experts send k vectors of each token
    there and back, and so their gradients (Lepikhin et al. 2020). A ring sends keys and values on, once forward,
    and backward again with their gradients (Liu et al. 2023); Ulysses exchanges queries, keys, values and output,
    and their gradients (Jacobs et al. 2023). A stage sends each microbatch on, and its gradient back (Huang et al.
    2018).
    """
    import jax

    from lm.config import lift
    from lm.models.pipeline import schedule
    from lm.sharding import layout
    from lm.train.step import Program

    where, asked = layout(case.mesh, case.rules), step(case)
    program = Program(asked.model, lift(asked.training)[0], where)
    size = {axis: ways for axis, ways in where.mesh.shape.items() if ways > 1}
    holding = [*where.over("batch"), *where.over("length")]  # devices that differ in these have other tokens
    total: dict[Key, float] = defaultdict(float)

    def add(kind: str, axes: list[str], result: float, times: float = 1) -> None:
        n = math.prod(size[axis] for axis in axes)
        if n > 1:
            share = (n - 1) / n * (2 if kind == "all-reduce" else 1)
            total[f"{kind} {'+'.join(axes)}"] += times * result * share

    shapes = program.abstract_state().params
    for leaf in jax.tree.leaves(shapes):
        split = [axis for part in leaf.sharding.spec if part for axis in ([part] if isinstance(part, str) else part)]
        shared = [axis for axis in split if axis in holding and axis != "expert"]
        held = FLOAT * leaf.size / math.prod(size[axis] for axis in split)  # bytes of one device
        gathered = held * math.prod(size[axis] for axis in shared)
        add("all-gather", shared, gathered, times=2)
        add("reduce-scatter" if "expert" in split else "all-reduce", shared, gathered)
        add("all-reduce", [axis for axis in holding if axis not in split], held)
    tokens = ROWS * LENGTH / math.prod(size[axis] for axis in holding)  # of one device
    stream = FLOAT * tokens * WIDTH  # bytes of its activations
    if "tensor" in size:
        add("all-reduce", ["tensor"], stream, times=4 * LAYERS + 2)
    if "expert" in size:
        add("all-to-all", ["expert"], stream * CHOSEN, times=4 * LAYERS)
    if "sequence" in size:
        s = size["sequence"]
        if where.rules.sequence == "ring":
            total["collective-permute sequence"] += LAYERS * (s - 1) * (2 + 4) * stream
        else:
            add("all-to-all", ["sequence"], stream, times=8 * LAYERS)
    if "stage" in size:
        plan = schedule(where, ROWS)
        total["collective-permute stage"] += 2 * plan.iterations * stream / plan.microbatches
    return dict(total)


def described(name: str, found: Found) -> dict[str, str]:
    """As the golden file has it, a line each."""
    return {f"{name}: {key}": f"{count:.0f} a step, {sent:.0f} bytes" for key, (count, sent) in sorted(found.items())}


def kept() -> dict[str, Any]:
    """The golden file: {"jax": version, "collectives": what `described` gives of all cases}."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def keep(found: Mapping[str, Found]) -> None:
    """Writes the golden file."""
    import jax

    lines = {line: said for name, one in found.items() for line, said in described(name, one).items()}
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(json.dumps({"jax": jax.__version__, "collectives": lines}, indent=1) + "\n", encoding="utf-8")


def rows(found: Mapping[str, Found]) -> list[dict[str, Any]]:
    """What is measured beside the textbook; what is below a hundredth of a case's bytes is left out."""
    made = []
    for case in CASES:
        if case.rules not in found:
            continue
        wanted, one = textbook(case), found[case.rules]
        least = 0.01 * sum(sent for _, sent in one.values())
        for key in [*one, *(key for key in wanted if key not in one)]:
            count, sent = one.get(key, (0, 0))
            if sent < least and wanted.get(key, 0) < least:
                continue
            made.append(
                {
                    "preset": case.rules,
                    "mesh": case.mesh,
                    "collective": key.split()[0],
                    "over": key.split()[1],
                    "a step": f"{count:.0f}",
                    "KB": f"{sent / 1e3:.1f}",
                    "textbook KB": f"{wanted[key] / 1e3:.1f}" if key in wanted else "",
                    "ratio": f"{sent / wanted[key]:.2f}" if wanted.get(key) else "",
                    "why": MORE[case.rules, key][1] if (case.rules, key) in MORE else "",
                }
            )
    return made
