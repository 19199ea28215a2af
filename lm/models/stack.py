"""A pattern of blocks over a residual stream: the layers of every architecture.

Layers made from one block lie stacked, every parameter with a leading axis "layers", and are compiled once. A parameter
that all of them share has one entry there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from lm import sharding
from lm.config import ConfigError, config
from lm.models import pipeline
from lm.models.execution import STREAM, Execution
from lm.models.model import Cache
from lm.nn.aux import Aux, in_parts, joined
from lm.nn.aux import whole as whole_batch
from lm.nn.block import Block, BlockLayer
from lm.nn.cost import Cost
from lm.nn.cross import Context
from lm.nn.kernels.attention_decode import Slots
from lm.nn.param import layer, stacked
from lm.sharding import Layout, ShardingError

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

    def check_stages(self, where: Layout) -> None:
        """Raises ShardingError where the layers can't be divided into the pipeline's stages."""
        if where.stages == 1:
            return
        if self.shared_layers:
            raise ShardingError("shared_layers are in every stage at once: nothing to split; leave stage= out")
        chunks, patterns = where.stages * where.repeats, len(self.pattern)
        if (self.layers - len(self.first)) % (chunks * patterns):
            times = f" x repeats={where.repeats}" if where.repeats > 1 else ""
            lead = f" after the first {len(self.first)}" if self.first else ""
            raise ShardingError(
                f"layers={self.layers} can't be divided into stage={where.stages}{times}; "
                f"make them{lead} a multiple of {chunks * patterns}"
            )

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
    """The first layers, whole patterns, then what is left of the last one.

    The patterns are a loop; or a pipeline, where the layout splits layers over stages.
    """

    def one(block: BlockLayer, x: jax.Array, reads: Any) -> tuple[jax.Array, Aux]:
        positions, segments, context = reads
        y, _, aux = block(checkpoint_name(x, STREAM), positions, segments, None, context)
        return sharding.constrain(y, "batch", "length", None), aux

    where = sharding.in_scope()
    interleaved = where is not None and where.repeats > 1  # such a pipeline rematerialises a stage, not each layer
    alone = execution.checkpoint(one)
    inside = one if interleaved else alone
    reads, found = (positions, segments, context), []
    for i in range(len(spec.first)):
        x, aux = alone(layer(blocks[f"first{i}"], 0), x, reads)
        found.append(aux)
    pattern = [blocks[str(i)] for i in range(len(spec.pattern))]
    whole, rest = divmod(spec.layers - len(spec.first), len(pattern))
    leaves, tree = jax.tree.flatten(pattern)
    count = whole if where is None else whole // (where.stages * where.repeats)

    loop = _loop(tree, inside, count, execution.unrolls(spec.layers))
    # what all layers share isn't sliced but closed over
    own = [leaf[:whole] if len(leaf) > 1 else None for leaf in leaves]
    shared = [leaf[0] if len(leaf) == 1 else None for leaf in leaves]
    if where is None or where.stages == 1:
        x, said = loop(own, shared, x, reads)
    else:
        with in_parts():
            x, said = pipeline.run(loop, own, shared, x, reads, where, execution.checkpoint)
        said = [each for aux in said for each in whole_batch(aux)]
    found += said
    for block in pattern[:rest]:
        x, aux = alone(layer(block, whole), x, reads)
        found.append(aux)
    return x, joined(found)


def _loop(tree: Any, one: Callable[..., tuple[jax.Array, Aux]], count: int, unrolled: bool) -> Callable[..., Any]:
    """A function of `count` patterns' parameters, own ones stacked, and what the first of these layers reads."""

    def loop(own: list[Any], shared: list[Any], x: jax.Array, reads: Any) -> tuple[jax.Array, list[Aux]]:
        def body(x: jax.Array, own: list[Any]) -> tuple[jax.Array, list[Aux]]:
            mine = [all if part is None else part for all, part in zip(shared, own, strict=True)]
            said = []
            for block in jax.tree.unflatten(tree, mine):
                x, aux = one(block, x, reads)
                said.append(aux)
            return x, said

        return jax.lax.scan(body, x, own, length=count, unroll=count if unrolled else 1)

    return loop


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
