"""The collectives of a training step, counted in the compiled program and by the textbook.

They are kept in tests/sharding/golden/collectives.json, so that a change that makes devices exchange more is seen:

    PYTHONPATH=. python tools/bench/scale.py --golden
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[2] / "tests" / "sharding" / "golden" / "collectives.json"
WIDTH, LAYERS, HEADS, VOCAB, ROWS, LENGTH = 32, 4, 4, 256, 16, 64  # a device's tokens are more than the width
EXPERTS, CHOSEN = 8, 2

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

# what is sent and isn't in the textbook: its share of the textbook's bytes at most, and why
BESIDES: dict[tuple[str, Key], tuple[float, str]] = {
    ("fsdp", "all-to-all fsdp"): (0.04, "columns of the token table's vectors are exchanged for whole ones"),
    ("fsdp_tp", "all-reduce data+fsdp"): (0.03, "the table's gradient, of which each keeps its part"),
    ("ep", "all-reduce fsdp+expert"): (0.06, "the table's gradient, of which each keeps its part"),
    ("pp", "all-reduce stage"): (0.64, "the last stage's output and the table's gradients are summed over stages"),
    ("pp", "all-gather stage"): (0.15, "rows that stages shared for the head come back to all"),
}
LITTLE = 0.01  # a share that needs no reason


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
    """Bytes that one device sends in a step by the papers, in the forms that XLA has for CPUs."""
    from lm.plan.textbook import textbook
    from lm.sharding import layout

    sent = textbook(step(case), layout(case.mesh, case.rules), scatters=False)
    return {f"{kind} {axes}": size for (kind, axes), size in sent.items()}


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
