"""How long a step takes at least: arithmetic, memory and network each at their published best (Williams et al. 2009).

Where all three overlap perfectly the longest of them is the step; where none does, their sum. A program lies between.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm.plan.memory import Bytes
from lm.plan.step import Step
from lm.plan.targets import Target
from lm.sharding import Layout

ITEM = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Estimate:
    """Seconds of one step. network: by axes of the mesh. counted: where the network's bytes are from."""

    compute: float
    memory: float
    network: dict[str, float]
    model_flops: float
    peak: float
    counted: str

    @property
    def best(self) -> float:
        """With everything overlapped."""
        return max(self.compute, self.memory, sum(self.network.values()))

    @property
    def worst(self) -> float:
        """With nothing overlapped."""
        return self.compute + self.memory + sum(self.network.values())

    @property
    def mfu(self) -> float:
        """The most that model FLOP/s can be of the peak: recomputation counts as time and not as work."""
        return self.model_flops / self.peak / self.best

    @property
    def bound(self) -> str:
        """What the step waits for."""
        times = {"arithmetic": self.compute, "memory": self.memory, "network": sum(self.network.values())}
        return max(times, key=lambda name: times[name])


def estimate(
    step: Step,
    where: Layout,
    machine: Target,
    held: Bytes,
    traffic: Sequence[Mapping[str, Any]] | None = None,
    spans: Mapping[str, int] | None = None,
) -> Estimate:
    """traffic: what `lm.plan.hlo.traffic` found in the compiled program; None: the textbook's collectives."""
    sent = _sent(traffic) if traffic is not None else textbook(step, where)
    training = step.training
    flops = training.objective.cost(step.model, step.length).train_flops * step.rows
    again = 4 / 3 if training.execution.remat == "full" else 1.0  # the forward pass a second time
    peak = machine.chip.flops * machine.devices
    return Estimate(
        compute=flops * again / peak,
        memory=_moved(step, where, held) / machine.chip.bandwidth,
        network={axes: size / bandwidth(axes, where, machine, spans) for axes, size in sent.items() if size},
        model_flops=flops,
        peak=peak,
        counted="counted in the compiled program" if traffic is not None else "by the textbook's formulas",
    )


def bandwidth(axes: str, where: Layout, machine: Target, spans: Mapping[str, int] | None = None) -> float:
    """Bytes/s that a device sends in a ring along some axes of the mesh.

    TPU: over one link each way round where the axis goes around the torus, over more where it spans more of its axes.
    GPU: NVLink inside a node; between nodes the network cards of the devices that take part there.
    """
    chip, names = machine.chip, axes.split("+")
    if chip.torus:
        if "replica" in names:
            return chip.outside
        spanned = sum((spans or {}).get(name, 1) or 1 for name in names)
        sides = [int(side) for side in machine.topology.split("x")]
        around = 2 if max(sides) >= (16 if chip.torus == 2 else 4) else 1
        return chip.link * around * min(spanned, sum(side > 1 for side in sides) or 1)
    sizes = where.mesh.shape
    order = list(sizes)
    last = max(order.index(name) for name in names)
    stride = math.prod(sizes[name] for name in order[last + 1 :])
    size = math.prod(sizes[name] for name in names)
    if stride * size <= chip.node:
        return chip.link
    return min(chip.link, chip.outside * max(1, chip.node // stride))


def textbook(step: Step, where: Layout) -> dict[str, float]:
    """Bytes that a device sends along each axis of the mesh in a step, by what each form of parallelism has to send.

    Sharded parameters are gathered forward and backward (a forward pass that is done again uses what the backward pass
    gathered), and their gradients are scattered (Rajbhandari et al. 2020). Replicated ones have their gradients summed;
    all in the type of the computation, from which gradients are widened where they lie. A layer split over
    "tensor" sums its two outputs and their gradients (Shoeybi et al. 2019); over "expert" it sends its tokens there and
    back (Lepikhin et al. 2020); over "sequence" keys and values go around (Liu et al. 2023).
    """
    shape, training = dict(where.mesh.shape), step.training
    item, parts = ITEM[training.execution.compute], training.accumulate
    cost = step.model.cost(step.length)
    passes = 3 if training.execution.remat == "full" else 2
    apart = shape["tensor"] * shape["stage"] * shape["expert"]
    weights = cost.params / apart
    rows = step.rows / parts / where.ways("batch")
    layers = getattr(step.model, "layers", 1) / shape["stage"]
    stream = rows * step.length / shape["sequence"] * step.model.width * item
    ring = {name: (size - 1) / size for name, size in shape.items()}
    sent: dict[str, float] = defaultdict(float)
    sharded = bool(where.rules.params)
    if shape["fsdp"] > 1 and sharded:
        sent["fsdp"] += parts * ring["fsdp"] * weights * 3 * item
    for name in ("data", "replica", *(() if sharded else ("fsdp",))):
        if shape[name] > 1:
            sent[name] += parts * 2 * ring[name] * weights * item / (shape["fsdp"] if sharded else 1)
    if shape["tensor"] > 1:
        sent["tensor"] += parts * layers * 2 * passes * 2 * ring["tensor"] * stream
    if shape["expert"] > 1:
        sent["expert"] += parts * layers * 2 * passes * ring["expert"] * stream
    if shape["sequence"] > 1:
        kept = rows * cost.cache * item / shape["sequence"] / shape["stage"]
        sent["sequence"] += parts * (passes + 1) * (shape["sequence"] - 1) * kept
    if shape["stage"] > 1:
        sent["stage"] += parts * 2 * stream
    return {name: size for name, size in sent.items() if size}


def _sent(traffic: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    sent: dict[str, float] = defaultdict(float)
    for entry in traffic:
        sent[entry["axes"]] += entry["bytes"]
    return dict(sent)


def _moved(step: Step, where: Layout, held: Bytes) -> float:
    """Bytes between a device and its memory in a step, by formula: state read and written, weights read once a pass,
    what a layer makes written and read."""
    shape, training = where.mesh.shape, step.training
    full = training.execution.remat == "full"
    apart = shape["tensor"] * shape["stage"] * shape["expert"]
    weights = step.model.cost(step.length).params * ITEM[training.execution.compute] / apart
    layers = getattr(step.model, "layers", 1)
    made = 2 * held.kept + (2 * held.layer * layers if full else 0)
    return 2 * (held.state + held.gradients) + training.accumulate * ((3 if full else 2) * weights + made)
