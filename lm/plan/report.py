"""A plan as text: what a step holds on each device of a machine, how long it takes at least, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lm.errors import UserError
from lm.plan.compile import Compiled, compiled, excess, why_not
from lm.plan.memory import Bytes, cache_bytes, largest, predicted
from lm.plan.roofline import Estimate, estimate
from lm.plan.step import Step, imagined
from lm.plan.suggest import ROOM, Choice, choices
from lm.plan.targets import GIB, Target

SHOWN = 5  # suggestions, and buffers


@dataclass(frozen=True)
class Planned:
    """A step on a machine. compiled None: nothing was compiled, for the reason in `why`."""

    step: Step
    machine: Target
    mesh: str
    rules: str | None
    held: Bytes
    time: Estimate
    compiled: Compiled | None
    why: str
    cache: float
    others: tuple[Choice, ...]

    @property
    def total(self) -> float:
        """Bytes of one device."""
        if self.compiled is None:
            return self.held.total
        return self.compiled.total if self.compiled.exhausted is None else excess(self.compiled.exhausted).used or 0.0

    @property
    def fits(self) -> bool:
        if self.compiled is not None and self.machine.tpu:
            return self.compiled.exhausted is None  # the compiler knows the limit
        return self.total <= self.machine.chip.memory


def plan(step: Step, machine: Target, mesh: str, rules: str | None = None, compiles: bool = True) -> Planned:
    """A step on a mesh of a machine. Raises UserError or ShardingError where it can't be split so."""
    where = imagined(mesh, rules, machine.devices)
    if where.mesh.size != machine.devices:
        raise UserError(f"mesh {mesh} uses {where.mesh.size} of the {machine.devices} devices of {machine.name}")
    held = predicted(step, where)
    why = why_not(machine) if compiles else "it wasn't asked for"
    found = None if why else compiled(step, machine, mesh, rules)
    counts = found is not None and found.exhausted is None  # else nothing says what is sent
    traffic, spans = (found.traffic, found.spans) if found is not None and counts else (None, None)
    time = estimate(step, where, machine, held, traffic, spans)
    cache = cache_bytes(step.model, where, step.rows, step.length)
    made = Planned(step, machine, mesh, rules, held, time, found, why or "", cache, ())
    if made.fits:
        return made
    others = [c for c in choices(step, machine, rules=rules) if c.held.total < ROOM * machine.chip.memory]
    return Planned(**{**made.__dict__, "others": tuple(others[:SHOWN])})


def text(made: Planned, steps: int, price: float | None = None) -> str:
    """price: dollars for a chip and hour, in place of the list's."""
    training, step, machine = made.step.training, made.step, made.machine
    parts = f" in {training.accumulate} parts" if training.accumulate > 1 else ""
    params = step.model.cost(step.length).params
    lines = [
        f"{params / 1e9:,.2f}B parameters on {machine.describe()}"
        if params > 1e8
        else f"{params / 1e6:,.2f}M parameters on {machine.describe()}",
        f"mesh {made.mesh or 'of one device'}; batch {step.rows} x {step.length} tokens{parts}, "
        f"remat {training.execution.remat}, {training.execution.compute}",
        "",
        *_memory(made),
        "",
        *_time(made, steps, machine.chip.price if price is None else price),
    ]
    if not made.fits:
        lines += ["", *_excess(made), "", *suggestions(made.others, step)]
    return "\n".join(lines)


def _memory(made: Planned) -> list[str]:
    held, found = made.held, made.compiled
    rows = [("parameters", held.params), ("optimizer", held.optimizer)]
    if held.average:
        rows.append(("average of the weights", held.average))
    if found is not None and found.exhausted is None:
        source = f"by {found.by}, in {found.seconds:.0f} s"
        gradients = min(held.gradients, found.temporaries)
        rows += [("gradients", gradients), ("activations and temporaries", found.temporaries - gradients)]
        rows.append(("batch, program, what isn't reused", found.total - sum(size for _, size in rows)))
    else:
        source = f"by the cost model: {made.why or 'the compiled program needs more than there is'}"
        rows += [("gradients", held.gradients), ("activations and temporaries", held.activations)]
        rows.append(("batch", held.batch))
    total = sum(size for _, size in rows)
    name, unit = ("GiB", GIB) if total > GIB / 10 else ("MiB", GIB / 1024)
    lines = [f"memory of a device, {name} ({source})"]
    lines += [f"  {part:<34}{size / unit:>9.2f}" for part, size in rows]
    verdict = "fits" if made.fits else "does not fit"
    lines.append(f"  {'total':<34}{total / unit:>9.2f}  of {made.machine.chip.memory / unit:,.1f}: {verdict}")
    if found is not None and found.exhausted is None:
        lines.append(f"  {'total by the cost model':<34}{held.total / unit:>9.2f}")
    if not made.machine.tpu and found is not None and made.step.training.execution.compute == "bfloat16":
        lines.append("  A CPU's XLA keeps bfloat16 products in float32, so a GPU needs less than this, not more.")
    lines.append(f"  {'cache to serve as many rows':<34}{made.cache / unit:>9.2f}  in bfloat16, instead of training")
    if found is not None and found.kernels:
        lines.append(f"  kernels: {', '.join(found.kernels)}")
    return lines


def _time(made: Planned, steps: int, price: float | None) -> list[str]:
    time, machine = made.time, made.machine
    tokens = made.step.rows * made.step.length
    network = ", ".join(f"{axes} {seconds:.4f}" for axes, seconds in time.network.items()) or "none"
    lines = [
        f"time of a step, s: {time.best:.4f} with all overlapped, {time.worst:.4f} with nothing overlapped",
        f"  arithmetic {time.compute:.4f}, memory {time.memory:.4f} (by formula), network: {network} ({time.counted})",
        f"  bound by {time.bound}; MFU at most {time.mfu:.0%}, {tokens / time.best:,.0f} tokens/s",
    ]
    if price is not None:
        hour = price * machine.chips
        low, high = (hour * seconds / 3600 for seconds in (time.best, time.worst))
        lines.append(
            f"cost: ${hour:,.2f} an hour; {steps:,} steps ${steps * low:,.0f} to ${steps * high:,.0f}; "
            f"a billion tokens ${1e9 / tokens * low:,.2f} to ${1e9 / tokens * high:,.2f}"
        )
    else:
        lines.append(f"cost: no list price of {machine.chip.kind} is known; give --price, dollars for a chip and hour")
    return lines


def _excess(made: Planned) -> list[str]:
    found = made.compiled
    buffers: tuple[dict[str, Any], ...] = ()
    if found is None or found.exhausted is None:
        buffers = found.buffers if found is not None else ()
        lines = [f"It takes {made.total / GIB:.2f} GiB of {made.machine.chip.memory / GIB:.1f} a device."]
    else:
        said = excess(found.exhausted)
        buffers = said.buffers
        used, limit = said.used, said.limit
        lines = [f"{found.by} gave up: {used / GIB:.2f} GiB of {limit / GIB:.2f} a device" if used and limit else
                 found.exhausted.splitlines()[0]]  # fmt: skip
    if not buffers:
        where = imagined(made.mesh, made.rules, made.machine.devices)
        buffers = tuple(
            {"bytes": size, "shape": shape, "source": f"x {count}, kept for the backward pass by the cost model"}
            for size, count, shape in largest(made.step, where)
        )
    if buffers:
        lines.append("largest buffers:")
        lines += [f"  {b['bytes'] / GIB:>7.2f} GiB  {b['shape']}  {b['source']}" for b in buffers[:SHOWN]]
    return lines


def suggestions(found: Sequence[Choice], step: Step) -> list[str]:
    """Meshes that fit by the cost model, as options of the command."""
    if not found:
        return ["Nothing that was tried fits: a larger machine, a smaller batch or a lower-memory optimizer is needed."]
    lines = ["These fit by the cost model, the fastest first:"]
    for choice in found[:SHOWN]:
        changes = " ".join(f"train.{change}" for change in choice.changes(step))
        mesh = f"--mesh {choice.mesh}" if choice.mesh else "one device"
        lines.append(
            f"  {' '.join(filter(None, (mesh, changes)))}: {choice.held.total / GIB:.1f} GiB, "
            f"{choice.time.best:.3f} to {choice.time.worst:.3f} s a step"
        )
    return lines
