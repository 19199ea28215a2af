"""What devices exchange in a training step, by what each form of parallelism has to send."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from lm import sharding
from lm.models import Model
from lm.models.pipeline import schedule
from lm.models.stack import Layers
from lm.nn.moe import MoE
from lm.plan.memory import abstract
from lm.plan.step import Step
from lm.sharding import Layout

ITEM = {"float32": 4, "bfloat16": 2}
Sent = dict[tuple[str, str], float]  # (a collective, axes of the mesh joined by +) -> bytes that one device sends


def textbook(step: Step, where: Layout, scatters: bool = True) -> Sent:
    """Weights that are split over devices with rows of their own are gathered for the forward and for the backward
    pass (a forward pass that is done again uses what the latter gathered), and their gradients are reduced and
    scattered (ZeRO-3, Rajbhandari et al. 2020). What is split otherwise, or not at all, has its gradient reduced to all
    that hold it. All in the type of the computation, from which gradients are widened where they lie.

    Layers split over "tensor" sum two activations forward and two backward, the token table one and the head one
    (Shoeybi et al. 2019). Experts send k vectors of each token there and back, and so their gradients (Lepikhin et al.
    2020). A ring sends keys and values on, and backward again with their gradients (Liu et al. 2023); Ulysses exchanges
    queries, keys, values and output, and their gradients (Jacobs et al. 2023). A stage sends each microbatch on, and
    its gradient back (Huang et al. 2018).

    scatters: False for XLA on CPU, which reduces all of a gradient where it then keeps a part.
    """
    training, model = step.training, step.model
    parts, item = training.accumulate, ITEM[training.execution.compute]
    size, holding = dict(where.mesh.shape), holders(where)
    sent: Sent = defaultdict(float)

    def add(kind: str, axes: Sequence[str], result: float, times: float = 1) -> None:
        n = math.prod(size[axis] for axis in axes)
        if n > 1:
            share = (n - 1) / n * (2 if kind == "all-reduce" else 1)
            sent[kind, "+".join(axes)] += parts * times * result * share

    for one in weights(step, where):
        scatter = "reduce-scatter" if scatters or "expert" in one.split else "all-reduce"
        add("all-gather", one.shared, one.gathered, times=2)
        add(scatter, one.shared, one.gathered)
        add("all-reduce", [axis for axis in holding if axis not in one.split], one.held)
    passes = 3 if training.execution.done_again else 2
    layers = sum(one.layers for one in trunks(model)) / where.stages
    tokens = step.rows / parts * step.length / where.ways("batch") / where.ways("length")
    stream = tokens * model.width * item  # bytes of one device's activations
    kept = tokens * model.cost(step.length).cache / step.length * item / where.stages / where.ways("kv_heads")
    add("all-reduce", ["tensor"], stream, times=2 * passes * layers + 2)
    add("all-to-all", ["expert"], stream, times=2 * passes * chosen(model) / where.stages)
    s = size["sequence"]
    if s > 1 and where.rules.sequence == "ring":
        sent["collective-permute", "sequence"] += parts * (s - 1) * (passes + 1) * kept
    elif s > 1:
        add("all-to-all", ["sequence"], 2 * layers * stream + kept, times=passes)
    if where.stages > 1:
        plan = schedule(where, step.rows // parts)
        sent["collective-permute", "stage"] += parts * 2 * plan.iterations * stream / plan.microbatches
    return {key: bytes_ for key, bytes_ in sent.items() if bytes_}


class Weight(NamedTuple):
    """A parameter as one device has it: bytes that it holds, and after gathering; axes that split it, and of these
    those over which it is gathered."""

    held: float
    gathered: float
    split: tuple[str, ...]
    shared: tuple[str, ...]


def weights(step: Step, where: Layout) -> Iterator[Weight]:
    """In the type of the computation."""
    arrays, item = abstract(step), ITEM[step.training.execution.compute]
    placed = sharding.shardings(arrays.params, arrays.axes, where.rules, where.mesh)
    for leaf, put in zip(jax.tree.leaves(arrays.params), jax.tree.leaves(placed), strict=True):
        split = tuple(axis for part in put.spec if part for axis in _axes(part))
        shared = tuple(axis for axis in split if axis in holders(where) and axis != "expert")
        held = float(item * math.prod(put.shard_shape(leaf.shape)))
        yield Weight(held, held * math.prod(where.mesh.shape[axis] for axis in shared), split, shared)


def holders(where: Layout) -> tuple[str, ...]:
    """The axes of the mesh along which devices have different tokens."""
    return (*where.over("batch"), *where.over("length"))


def trunks(model: Model) -> list[Layers]:
    """The stacks of layers that a model is made of."""
    if isinstance(model, Layers):
        return [model]
    parts = (getattr(model, name, None) for name in ("body", "encoder", "decoder", "generator", "discriminator"))
    return [trunk for part in parts if part is not None for trunk in trunks(part)]


def chosen(model: Model) -> float:
    """How many experts compute a token, in all layers."""
    blocks = [block for trunk in trunks(model) for block in trunk.each()]
    return sum(block.ff.routing.per_token() for block in blocks if isinstance(block.ff, MoE))


def _axes(part: Any) -> tuple[str, ...]:
    """Of one dimension of a PartitionSpec, which writes one axis as a string."""
    return (part,) if isinstance(part, str) else tuple(part)
