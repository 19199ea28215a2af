"""Mixers over the length: how fast a block of each trains, against attention of equal width.

python tools/bench/mixers.py [--json FILE] [--rounds 5] [--lengths 128 ...] [--mixers Mamba-2 ...] [--quick]

A chunk is forward and backward passes of one block without feed-forward layer, over rows of one document each, float32,
as many rows as make up `--tokens` tokens. Every mixer at every length is a process of its own, and takes turns with
attention and with the other lengths. The slope is that of log time of a document over log length, fitted in each round:
1 is linear, 2 is quadratic.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import harness
import numpy as np

WIDTH, HEADS, WINDOW, TOKENS = 256, 4, 128, 8192
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
QUICK = {"width": 32, "tokens": 128, "lengths": (32, 64)}
AGAINST = "attention"
MIXERS = (AGAINST, "window", "Mamba", "Mamba-2", "gated delta net", "retention")


def mixer(name: str, width: int) -> Any:
    """Of about the same number of parameters, but for Mamba's and retention's, which are wider inside."""
    from lm.nn import GatedDeltaNet, Mamba, Mamba2, Mask, Retention, mha

    head = width // HEADS
    return {
        AGAINST: mha(HEADS),
        "window": mha(HEADS, mask=Mask(window=WINDOW)),
        "Mamba": Mamba(),
        "Mamba-2": Mamba2(heads=2 * HEADS, head_width=head, state=head),
        "gated delta net": GatedDeltaNet(heads=HEADS, key_heads=HEADS, key_width=head, value_width=head),
        "retention": Retention(heads=HEADS),
    }[name]


def contestant(name: str, width: int, length: int, tokens: int) -> None:
    """Serves forward and backward passes of one block."""
    from lm.launch import prepare_jax

    prepare_jax()
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from lm.models import Execution
    from lm.nn import Block, param

    block = Block(mixer=mixer(name, width))
    graph, params = param.split(block.build(width, rngs=nnx.Rngs(0)))
    rows = max(1, tokens // length)
    x = jax.random.normal(jax.random.key(0), (rows, length, width))
    segments = jnp.ones((rows, length), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(length), segments.shape)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        layer: Any = param.merge(graph, params)
        return jnp.mean(jnp.square(layer(x, positions, segments)[0]))

    grad = jax.jit(jax.grad(loss, argnums=(0, 1)), compiler_options=Execution().compiler_options())
    cost = block.cost(width, length)
    facts = {"params": cost.params, "train_flops": rows * cost.train_flops, "tokens": rows * length}
    harness.serve(lambda: jax.block_until_ready(grad(params, x)), facts)


def contest(name: str, lengths: Sequence[int], rounds: int, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Chunks of one mixer and of attention at every length, all in turns."""
    command = [sys.executable, __file__, *(part for size, value in sizes.items() for part in (f"--{size}", str(value)))]
    running = {
        f"{who} {length}": harness.Contestant([*command, "--lengths", str(length), "--contestant", who])
        for length in lengths
        for who in dict.fromkeys((AGAINST, name))
    }
    chunks = harness.take_turns(running, rounds)
    found = []
    for length in lengths:
        of = {who: [vars(c) for c in chunks[f"{who} {length}"]] for who in dict.fromkeys((AGAINST, name))}
        found.append({**running[f"{name} {length}"].facts, "length": length, "chunks": of})
    for one in running.values():
        one.close()
    return found


def slope(found: Sequence[Mapping[str, Any]], name: str) -> harness.Spread:
    """Of log time over log length, round by round."""
    lengths = np.array([one["length"] for one in found])
    walls = np.array([[chunk["wall"] for chunk in one["chunks"][name]] for one in found])  # [lengths, rounds]
    a_document = walls * (lengths / [one["tokens"] for one in found])[:, None]
    return harness.spread(np.polyfit(np.log(lengths), np.log(a_document), 1)[0].tolist())


def rows_of(name: str, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a length, and how fast the time grows in the last of them."""
    rows = []
    for one in found:
        chunks = {who: [harness.Chunk(**c) for c in of] for who, of in one["chunks"].items()}
        wall = harness.spread([c.wall for c in chunks[name]])
        row = {"mixer": name, "parameters": f"{one['params']:,}", "length": one["length"]}
        row["tokens/s"] = f"{one['tokens'] / wall.median:,.0f}"
        row["GFLOP/s"] = f"{one['train_flops'] / wall.median / 1e9:.0f}"
        row["MB"] = f"{max(c.memory for c in chunks[name]) / 1e6:.0f}"
        faster = "" if name == AGAINST else f"{harness.ratio(chunks[name], chunks[AGAINST]):.2f}"
        row["times as fast as attention"] = faster
        row["slope"] = f"{slope(found, name):.2f}" if one is found[-1] and len(found) > 1 else ""
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--mixers", nargs="+", default=MIXERS, choices=MIXERS)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of one chunk")
    parser.add_argument("--quick", action="store_true", help="tiny cases, to see that everything works")
    parser.add_argument("--contestant", choices=MIXERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant is not None:
        return contestant(options.contestant, options.width, options.lengths[0], options.tokens)
    if options.quick:
        vars(options).update(QUICK, rounds=2)
    rows, numbers, sizes = [], {}, {"width": options.width, "tokens": options.tokens}
    for name in options.mixers:
        numbers[name] = contest(name, options.lengths, options.rounds, sizes)
        rows += rows_of(name, numbers[name])
    harness.write(options.json, rows, numbers)


if __name__ == "__main__":
    main()
