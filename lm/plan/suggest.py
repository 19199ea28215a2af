"""Meshes, microbatches and rematerialisation that fit a machine, by the cost model, the fastest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lm.config import ConfigError
from lm.config import replace as changed
from lm.errors import UserError
from lm.plan.memory import Abstract, Bytes, abstract, predicted
from lm.plan.roofline import Estimate, estimate
from lm.plan.step import Step, imagined
from lm.plan.targets import Target

ROOM = 0.9  # of the memory: the cost model is within 10%
TENSOR = (1, 2, 4, 8)
REMAT = ("none", "dots", "full")


@dataclass(frozen=True)
class Choice:
    """A way to run a step on a machine."""

    mesh: str
    step: Step
    held: Bytes
    time: Estimate

    def changes(self, step: Step) -> tuple[str, ...]:
        """What it changes of an experiment's step, as overrides of the training."""
        mine, theirs = self.step.training, step.training
        said = []
        if mine.accumulate != theirs.accumulate:
            said.append(f"accumulate={mine.accumulate}")
        if mine.execution.remat != theirs.execution.remat:
            said.append(f"execution.remat={mine.execution.remat}")
        return tuple(said)


def meshes(machine: Target) -> Iterator[str]:
    """Meshes of all devices: sharded over all, or over a part with copies, and heads split inside a node."""
    for tensor in TENSOR:
        if machine.devices % tensor:
            continue
        rest = machine.devices // tensor
        fsdp = rest
        while fsdp >= 1:
            sizes = {"data": rest // fsdp, "fsdp": fsdp, "tensor": tensor}
            yield ",".join(f"{name}={size}" for name, size in sizes.items() if size > 1)
            fsdp = fsdp // 2 if fsdp % 2 == 0 else 0


def choices(step: Step, machine: Target, mesh: str = "", rules: str | None = None) -> list[Choice]:
    """All that fit with room to spare, the fastest first. mesh: keep to this one."""
    arrays = abstract(step)
    found = []
    for one in (mesh,) if mesh else meshes(machine):
        for remat in REMAT:
            for accumulate in _parts(step):
                choice = _tried(step, machine, one, rules, remat, accumulate, arrays)
                if choice is not None and choice.held.total <= ROOM * machine.chip.memory:
                    found.append(choice)
                    break  # more parts are slower
    # of equally fast ones what differs least from what was asked, then what holds least
    return sorted(found, key=lambda c: (round(c.time.worst, 4), len(c.changes(step)), c.held.total))


def _parts(step: Step) -> Iterator[int]:
    parts = step.training.accumulate
    while step.rows % parts == 0:
        yield parts
        parts *= 2


def _tried(
    step: Step, machine: Target, mesh: str, rules: str | None, remat: str, parts: int, arrays: Abstract
) -> Choice | None:
    """None where it can't be done."""
    try:
        where = imagined(mesh, rules, machine.devices)
        if (step.rows // parts) % where.ways("batch"):
            return None
        training = changed(step.training, {"accumulate": parts, "execution.remat": remat})
        mine = replace(step, training=training)
        held = predicted(mine, where, arrays=arrays)
    except (UserError, ConfigError):
        return None
    return Choice(mesh, mine, held, estimate(mine, where, machine, held))
