"""How long a step takes at least: arithmetic, memory and network each at their published best (Williams et al. 2009).

Where all three overlap perfectly the longest of them is the step; where none does, their sum. A program lies between.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm.models.pipeline import schedule
from lm.plan.memory import Bytes
from lm.plan.step import Step
from lm.plan.targets import Target
from lm.plan.textbook import textbook, weights
from lm.sharding import Layout


@dataclass(frozen=True)
class Estimate:
    """Seconds of one step.

    compute: with what pipeline stages wait for one another. network: by axes of the mesh. counted: where the network's
    bytes are from.
    """

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
    sent = _sent(traffic) if traffic is not None else _by_axes(step, where)
    training = step.training
    flops = training.objective.cost(step.model, step.length).train_flops * step.rows
    again = 4 / 3 if training.execution.done_again else 1.0  # the forward pass a second time
    idle = schedule(where, step.rows // training.accumulate).bubble if where.stages > 1 else 0.0
    peak = machine.chip.flops * machine.devices
    return Estimate(
        compute=flops * again / peak / (1 - idle),
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


def _sent(traffic: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    sent: dict[str, float] = defaultdict(float)
    for entry in traffic:
        sent[entry["axes"]] += entry["bytes"]
    return dict(sent)


def _by_axes(step: Step, where: Layout) -> dict[str, float]:
    sent: dict[str, float] = defaultdict(float)
    for (_, axes), size in textbook(step, where).items():
        sent[axes] += size
    return dict(sent)


def _moved(step: Step, where: Layout, held: Bytes) -> float:
    """Bytes between a device and its memory in a step, by formula: state read and written, weights read once a pass,
    what a layer makes written and read."""
    training, again = step.training, step.training.execution.done_again
    read = sum(one.gathered for one in weights(step, where))
    layers = getattr(step.model, "layers", 1) / where.stages
    made = 2 * held.kept + (2 * held.layer * layers if again else 0)
    return 2 * (held.state + held.gradients) + training.accumulate * ((3 if again else 2) * read + made)
