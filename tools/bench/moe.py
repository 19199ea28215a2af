"""What sparsity costs: a mixture of experts against the dense layer of equal active FLOPs, forward and backward.

python tools/bench/moe.py [--json FILE] [--rounds 9] [--cases top-2 ...] [--quick]

A dense gated MLP of hidden width k F against experts of width F, k of them a token: the same products, and besides
them routing, sorting and blocks that aren't full. "dropless" is the grouped product of this platform, "plain" the
library's (`jax.lax.ragged_dot`), "capacity" drops what exceeds 1.25 of the fair share. Routers are as drawn, with the
load that gives, which is printed. Every contestant is a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import harness


@dataclass(frozen=True)
class Case:
    """One layer; a chunk is `calls` gradients of `rows` rows of `length` tokens."""

    width: int
    hidden: int
    experts: int
    k: int
    rows: int = 8
    length: int = 256
    calls: int = 8
    contestants: tuple[str, ...] = ("dense", "dropless", "capacity", "plain")

    def layer(self, contestant: str) -> Any:
        from lm.nn import Capacity, Dropless, MoE, SoftmaxTopK, swiglu

        if contestant == "dense":
            return swiglu(self.k * self.hidden)
        dispatch = Capacity() if contestant == "capacity" else Dropless()
        return MoE(expert=swiglu(self.hidden), experts=self.experts, routing=SoftmaxTopK(k=self.k), dispatch=dispatch)


CASES = {
    "top-2 of 8, width 256": Case(256, 512, 8, 2),
    "top-2 of 8, width 512": Case(512, 512, 8, 2, calls=4),
    "top-8 of 32, width 256": Case(256, 128, 32, 8),
    "top-2 of 8, width 256, 8k tokens": Case(256, 512, 8, 2, rows=32, calls=2),
}
QUICK = {"top-2 of 4": Case(32, 16, 4, 2, rows=2, length=64, calls=2)}


def contestant(case: Case, name: str) -> None:
    from lm.launch import prepare_jax

    prepare_jax()
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from lm.models import Execution
    from lm.nn import param
    from lm.nn.kernels.platform import plain_forms

    execution = Execution(kernels="plain" if name == "plain" else "auto")
    graph, params = param.split(case.layer(name).build(case.width, rngs=nnx.Rngs(params=0)))
    x, dy = jax.random.normal(jax.random.key(1), (2, case.rows, case.length, case.width))

    def loss(params: param.Params, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        with plain_forms(execution.kernels == "plain"):
            y, aux = param.merge(graph, params)(x)  # type: ignore[operator]
        return jnp.sum(y * dy) + aux.loss, aux.metrics

    # with the value, since without it the dense layer would leave out its last product, whose result nothing reads
    both = jax.value_and_grad(loss, (0, 1), has_aux=True)
    gradient = jax.jit(both, compiler_options=execution.compiler_options())

    def chunk() -> None:
        for _ in range(case.calls):
            jax.block_until_ready(gradient(params, x))

    metrics = {metric: float(value) for metric, value in gradient(params, x)[0][1].items()}
    harness.serve(chunk, {"metrics": metrics})


def contest(name: str, case: Case, rounds: int, quick: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--cases", name, *(["--quick"] if quick else [])]
    running = {who: harness.Contestant([*command, "--contestant", who]) for who in case.contestants}
    metrics = {who: one.facts["metrics"] for who, one in running.items()}
    chunks = harness.take_turns(running, rounds)
    for one in running.values():
        one.close()
    numbers = {who: [vars(chunk) for chunk in found] for who, found in chunks.items()}
    return {"case": dataclasses.asdict(case), "metrics": metrics, "chunks": numbers}


def rows_of(name: str, case: Case, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a contestant, compared with the dense layer round by round."""
    chunks = {who: [harness.Chunk(**c) for c in of] for who, of in found["chunks"].items()}
    rows = []
    for who, of in chunks.items():
        metrics = found["metrics"][who]
        row = {"case": name, "": who}
        row["ms"] = f"{harness.spread([1e3 * c.wall / case.calls for c in of]):.1f}"
        row["CPU ms"] = f"{harness.spread([1e3 * c.cpu / case.calls for c in of]):.1f}"
        row["MB"] = f"{max(c.memory for c in of) / 1e6:.0f}"
        row["times the dense layer"] = f"{harness.ratio(chunks['dense'], of):.2f}"
        row["max load"] = f"{metrics['moe/max_load']:.2f}" if metrics else ""
        row["dropped"] = f"{metrics['moe/dropped']:.1%}" if "moe/dropped" in metrics else ""
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cases", nargs="+", default=[""], help="parts of the names of the cases to run")
    parser.add_argument("--quick", action="store_true", help="a tiny case, to see that everything works")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    cases = QUICK if options.quick else CASES
    if options.contestant is not None:
        return contestant(cases[options.cases[0]], options.contestant)
    rows, numbers = [], {}
    for name, case in cases.items():
        if any(part in name for part in options.cases):
            numbers[name] = contest(name, case, 2 if options.quick else options.rounds, options.quick)
            rows += rows_of(name, case, numbers[name])
    harness.write(options.json, rows, numbers)


if __name__ == "__main__":
    main()
