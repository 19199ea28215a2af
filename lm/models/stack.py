"""A pattern of blocks over a residual stream: the layers of every architecture.

Layers made from one block lie stacked, every parameter with a leading axis "layers", and are compiled once. A parameter
that all of them share has one entry there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from lm import sharding
from lm.config import ConfigError, config
from lm.models.execution import Execution
from lm.models.model import Cache
from lm.nn.aux import Aux, joined
from lm.nn.block import Block, BlockLayer
from lm.nn.cost import Cost
from lm.nn.cross import Context
from lm.nn.kernels.attention_decode import Slots
from lm.nn.param import layer, stacked

Reads = Context | Sequence[Slots | None] | None  # an encoder's output, or each layer's keys and values of it


@config
class Layers:
    """Which block makes which layer.

    block: one block for all layers, or a pattern that repeats. first: blocks of layers that come before the pattern;
    `layers` counts them. shared_layers: all layers made from one block are the same parameters (Dehghani et al. 2018;
    ALBERT).
    """

    layers: int
    block: Block | tuple[Block, ...]
    first: tuple[Block, ...] = ()
    shared_layers: bool = False

    @property
    def pattern(self) -> tuple[Block, ...]:
        return self.block if isinstance(self.block, tuple) else (self.block,)

    def check_layers(self) -> None:
        if self.layers < 1:
            raise ConfigError(f"layers={self.layers} must be at least 1")
        if not self.pattern:
            raise ConfigError("block=() is an empty pattern; give at least one block")
        if len(self.pattern) + len(self.first) > self.layers:
            lead = f" after {len(self.first)} first ones" if self.first else ""
            raise ConfigError(f"a pattern of {len(self.pattern)} blocks{lead} doesn't fit layers={self.layers}")

    def repeats(self, index: int) -> int:
        """How many layers are made from entry `index` of the pattern."""
        return math.ceil((self.layers - len(self.first) - index) / len(self.pattern))

    def stacks(self) -> dict[str, tuple[Block, int]]:
        """Each stack's block and how many layers are made from it."""
        first = {f"first{i}": (block, 1) for i, block in enumerate(self.first)}
        return first | {str(i): (block, self.repeats(i)) for i, block in enumerate(self.pattern)}

    def places(self) -> list[tuple[str, int]]:
        """Each layer in order, as its stack and its place there."""
        lead, count = len(self.first), len(self.pattern)
        first = [(f"first{i}", 0) for i in range(lead)]
        return first + [(str(i % count), i // count) for i in range(self.layers - lead)]

    def each(self) -> list[Block]:
        """The block of each layer in order."""
        stacks = self.stacks()
        return [stacks[name][0] for name, _ in self.places()]

    def layers_cost(self, width: int, length: int, context: int = 0) -> Cost:
        """Of all layers, for `length` tokens that read a context of so many."""
        total = Cost()
        for block, count in self.stacks().values():
            one = block.cost(width, length, context)
            total += (one.all_shared() if self.shared_layers else one).times(count)
        return total


def grouped(blocks: Sequence[Block]) -> dict[str, Any]:
    """The fields of `Layers` for a model of these layers: the shortest first blocks and pattern that give them."""

    def repeats(lead: int, period: int) -> bool:
        return all(blocks[i] == blocks[i - period] for i in range(lead + period, len(blocks)))

    fits = ((lead, size - lead) for size in range(1, len(blocks) + 1) for lead in range(size))
    lead, period = next((lead, period) for lead, period in fits if repeats(lead, period))
    pattern = tuple(blocks[lead : lead + period])
    return {"layers": len(blocks), "first": tuple(blocks[:lead]), "block": pattern if period > 1 else pattern[0]}


def build(spec: Layers, width: int, rngs: nnx.Rngs) -> nnx.Dict:
    """The stacks of a model's layers."""
    made = {}
    for name, (block, count) in spec.stacks().items():
        count = 1 if spec.shared_layers else count
        made[name] = stacked(lambda r, b=block: b.build(width, rngs=r, depth=spec.layers), count, rngs)
    return nnx.Dict(made)


def run(
    spec: Layers,
    blocks: Any,
    x: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    execution: Execution,
    context: Context | None = None,
) -> tuple[jax.Array, Aux]:
    """Loops over whole patterns, then does what is left of the last one."""

    @execution.checkpoint
    def one(block: BlockLayer, x: jax.Array) -> tuple[jax.Array, Aux]:
        y, _, aux = block(x, positions, segments, None, context)
        return sharding.constrain(y, "batch", "length", None), aux

    found: list[Any] = []
    for i in range(len(spec.first)):
        x, aux = one(layer(blocks[f"first{i}"], 0), x)
        found.append(aux)
    pattern = [blocks[str(i)] for i in range(len(spec.pattern))]
    whole, rest = divmod(spec.layers - len(spec.first), len(pattern))
    leaves, tree = jax.tree.flatten(pattern)

    def body(x: jax.Array, own: list[Any]) -> tuple[jax.Array, list[Aux]]:
        # what all layers share isn't sliced but closed over
        mine = [all[0] if part is None else part for all, part in zip(leaves, own, strict=True)]
        said = []
        for block in jax.tree.unflatten(tree, mine):
            x, aux = one(block, x)
            said.append(aux)
        return x, said

    sliced = [leaf[:whole] if len(leaf) > 1 else None for leaf in leaves]
    unroll = whole if execution.unrolls(spec.layers) else 1
    x, said = jax.lax.scan(body, x, sliced, length=whole, unroll=unroll)
    found += said
    for block in pattern[:rest]:
        x, aux = one(layer(block, whole), x)
        found.append(aux)
    return x, joined(found)


def layers(spec: Layers, blocks: Any) -> list[BlockLayer]:
    """Each layer in order, out of its stack."""
    return [layer(blocks[name], index) for name, index in spec.places()]


def run_cached(
    every: Sequence[BlockLayer],
    x: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    cache: Cache,
    context: Reads = None,
) -> tuple[jax.Array, Cache, Aux]:
    """One layer after another, so that each updates its own cache in place."""
    after, found = [], []
    reads = [context] * len(every) if context is None or isinstance(context, Context) else context
    for one, old, read in zip(every, cache, reads, strict=True):
        x, new, aux = one(x, positions, segments, old, read)
        after.append(new)
        found.append(aux)
    return x, tuple(after), joined(found)
