"""A trace of some training steps by XLA's profiler, and what it says: where a device's time goes, and how much is idle.

The trace is also for other viewers (xprof, TensorBoard, Perfetto): it lies as they expect it in a run's `profile/`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from lm.errors import UserError
from lm.files import reason
from lm.train import hosts

log = logging.getLogger(__name__)

FOLDER, STEPS = "profile", "steps.json"
CONTROL = re.compile(r"(while|call|conditional)(\.\d+)?(\.clone.*)?$")  # their time is that of what they hold
COLLECTIVE = re.compile(r"all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|ragged-all-to-all")


@dataclass(frozen=True)
class Window:
    """The steps to trace, counted from 1, both included."""

    first: int
    last: int

    @classmethod
    def read(cls, text: str) -> Window:
        """`Window.read("steps=10:15")`."""
        found = re.fullmatch(r"steps=(\d+):(\d+)", text.replace(" ", ""))
        if found is None or not 1 <= int(found.group(1)) <= int(found.group(2)):
            raise UserError(
                f"--profile '{text}' must be of the form steps=10:15: the first and the last step, counted from 1"
            )
        return cls(int(found.group(1)), int(found.group(2)))

    def check(self, steps: int) -> None:
        """Raises UserError for a run that has fewer steps. It is no fault of the run, so it is asked before that is
        opened."""
        if self.last > steps:
            raise UserError(f"--profile steps={self.first}:{self.last}: the run has {steps} steps")


class Tracer:
    """Traces a window of a run on the first process; without one it does nothing.

    Tracing waits for the device before and after, and changes no number of the run. Where it fails, the run goes on.
    """

    def __init__(
        self,
        window: Window | None,
        home: Path,
        uncounted: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        """uncounted: a scope in which no training time is counted."""
        self.window, self.folder, self.uncounted = window, home / FOLDER, uncounted
        # a dispatch ends before the window and with it
        self.stops = set() if window is None else {window.first - 1, window.last} - {0}
        self._on, self._since = False, 0

    def begin(self, step: int, state: Any) -> None:
        """The step after `step` is about to be dispatched."""
        if self.window is None or self._on or not hosts.first():
            return
        if step >= self.window.last:
            log.warning("steps %d to %d were done before; none is profiled", self.window.first, self.window.last)
            self.window = None
        elif step >= self.window.first - 1:
            jax.block_until_ready(state)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every call of a Python function would be in the trace
            try:
                with self.uncounted():
                    shutil.rmtree(self.folder, ignore_errors=True)
                    jax.profiler.start_trace(self.folder, profiler_options=options)
            except (OSError, RuntimeError) as error:
                self._failed(error)
                return
            self._on, self._since = True, step

    def end(self, step: int, state: Any) -> None:
        """Steps up to `step` are dispatched."""
        if self._on and self.window is not None and step >= self.window.last:
            jax.block_until_ready(state)
            self.close(step)

    def close(self, step: int) -> None:
        """Writes what was traced, if anything is."""
        if not self._on:
            return
        self._on, self.window = False, None
        try:
            with self.uncounted():
                jax.profiler.stop_trace()
                (self.folder / STEPS).write_text(json.dumps({"first": self._since + 1, "last": step}))
        except (OSError, RuntimeError) as error:
            self._failed(error)
            return
        log.info("steps %d to %d are profiled: lm profile %s", self._since + 1, step, self.folder.parent)

    def _failed(self, error: Exception) -> None:
        self.window = None
        log.warning("no profile is written to %s: %s", self.folder, reason(error))


def too_late(window: Window | None, home: Path) -> None:
    """Says that a run which is done isn't profiled."""
    if window is not None and hosts.first():
        log.warning("%s is done, none of its steps is profiled; train it again in another folder", home)


# ---- reading ----------------------------------------------------------------------------------------------------


class Event(NamedTuple):
    """One execution of an operation on a device; times in nanoseconds."""

    device: str
    program: str  # its name and its id, as XLA has it: "jit__step(2)"
    operation: str
    start: float
    duration: float


@dataclass(frozen=True)
class Operation:
    """What one operation of a compiled program took. seconds and calls: of all devices, over all steps.

    source: where in the model it was traced, "" where the trace doesn't say.
    """

    program: str
    name: str
    source: str
    seconds: float
    calls: int

    @property
    def collective(self) -> bool:
        """Whether devices exchange something in it. Waiting for each other is in its time."""
        return COLLECTIVE.search(self.name) is not None


@dataclass(frozen=True)
class Profile:
    """What the trace of the steps from `first` to `last` says, evaluations between them included.

    operations: the longest first. idle: of each device, the share of the traced time in which it ran none of them;
    the time counts from the first operation on any device to the last. On CPU, waiting for a free core is idle, too.
    """

    first: int
    last: int
    seconds: float
    operations: tuple[Operation, ...]
    idle: dict[str, float]

    @property
    def steps(self) -> int:
        return self.last - self.first + 1

    @property
    def busy(self) -> float:
        """Seconds in operations, of all devices together. More than the time where they run side by side."""
        return sum(each.seconds for each in self.operations)

    def programs(self) -> dict[str, float]:
        """The share of `busy` of each program, by its name: "_step", or "_steps" for several in one dispatch."""
        found: dict[str, float] = defaultdict(float)
        for each in self.operations:
            found[each.program.partition("(")[0].removeprefix("jit_")] += each.seconds / self.busy
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def read(home: Path) -> Profile:
    """The profile in a run's folder. Raises UserError where there is none, or nothing of a device in it."""
    folder = home / FOLDER
    files = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    if not files or not (folder / STEPS).exists():
        again = "give the command that trains it --profile steps=10:15 as well, before it is done"
        raise UserError(f"{home} has no profile; {again}" if home.is_dir() else f"there is no run's folder {home}")
    steps, data = json.loads((folder / STEPS).read_text()), files[-1].read_bytes()
    found = list(events(data))
    if not found:
        raise UserError(f"{files[-1]} holds no operation of a device; profile more steps, or other ones")
    return summary(found, sources(data), steps["first"], steps["last"])


def summary(found: list[Event], names: dict[str, dict[str, str]], first: int, last: int) -> Profile:
    """Adds events up. `names`: what `sources` gave."""
    totals: dict[tuple[str, str], list[float]] = defaultdict(list)
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in found:
        totals[event.program, event.operation].append(event.duration)
        spans[event.device].append((event.start, event.start + event.duration))
    operations: dict[str, set[str]] = defaultdict(set)
    for program, name in totals:
        operations[program].add(name)
    known = {program: _known(names, program, each) for program, each in operations.items()}
    start, end = min(s for all in spans.values() for s, _ in all), max(e for all in spans.values() for _, e in all)
    made = [
        Operation(program, name, known[program].get(name, ""), sum(times) * 1e-9, len(times))
        for (program, name), times in totals.items()
    ]
    made.sort(key=lambda each: -each.seconds)
    idle = {device: 1 - _covered(all) / (end - start) for device, all in sorted(spans.items())}
    return Profile(first, last, (end - start) * 1e-9, tuple(made), idle)


def _known(names: dict[str, dict[str, str]], program: str, operations: set[str]) -> dict[str, str]:
    """What is known of a program's operations. One that comes from the compile cache may have got another id."""
    name = program.partition("(")[0]
    alike = [found for key, found in names.items() if key.partition("(")[0] == name]
    return names.get(program) or max(alike, key=lambda found: len(operations & found.keys()), default={})


def events(data: bytes) -> Iterator[Event]:
    """The operations in a serialised trace.

    A TPU's are the line "XLA Ops" of its plane, named by their whole text, and the line "XLA Modules" says whose they
    are; a GPU's kernels lie on lines called "Stream ..."; a CPU's operations are among what the host's threads do.
    """
    for plane in jax.profiler.ProfileData.from_serialized_xspace(data).planes:
        device = plane.name.removeprefix("/device:") if plane.name.startswith("/device:") else None
        if device is None and not plane.name.startswith("/host:CPU"):
            continue
        lines, runs = list(plane.lines), []
        if device is not None:
            ops = [line for line in lines if line.name == "XLA Ops"]
            runs = [event for line in lines if ops and line.name == "XLA Modules" for event in line.events]
            lines = ops or [line for line in lines if line.name.startswith("Stream")]
        for line in lines:
            for event in line.events:
                stats = dict(event.stats)
                if device is None and "hlo_op" not in stats:
                    continue  # of the host itself
                operation = str(stats.get("hlo_op") or _name(event.name))
                if CONTROL.match(operation) or not event.duration_ns:
                    continue
                program = f"{stats.get('hlo_module', '')}({stats.get('program_id', '')})"
                if runs:
                    program = next((run.name for run in runs if run.start_ns <= event.start_ns < run.end_ns), "()")
                where = device or f"CPU:{stats.get('device_ordinal', 0)}"
                yield Event(where, program, operation, event.start_ns, event.duration_ns)


def sources(data: bytes) -> dict[str, dict[str, str]]:
    """By program and operation where it comes from: what the programs say that lie in the trace.

    They are protocol buffers (XSpace > XPlane > XEventMetadata > XStat > HloProto > HloModuleProto), of which a few
    fields are read by number.
    """
    found: dict[str, dict[str, str]] = {}
    for plane in _each(data, 1):
        if _first(plane, 2) != b"/host:metadata":
            continue
        for entry in _each(plane, 4):
            metadata = _first(entry, 2) or b""
            for stat in _each(metadata, 5):
                module = _first(_first(stat, 6) or b"", 1)
                if module:
                    found[(_first(metadata, 2) or b"").decode()] = _named(module)
    return found


def _named(module: bytes) -> dict[str, str]:
    """The source of each operation of a program."""
    found = {}
    for computation in _each(module, 3):
        for instruction in _each(computation, 2):
            source = _first(_first(instruction, 7) or b"", 2)
            if source:
                found[(_first(instruction, 1) or b"").decode()] = source.decode()
    return found


def _each(message: bytes, number: int) -> Iterator[bytes]:
    """The values of a field of a serialised message."""
    from google.protobuf import empty_pb2, unknown_fields

    for field in unknown_fields.UnknownFieldSet(empty_pb2.Empty.FromString(message)):
        if field.field_number == number and isinstance(field.data, bytes):
            yield field.data


def _first(message: bytes, number: int) -> bytes | None:
    return next(_each(message, number), None)


def _name(text: str) -> str:
    """An operation's name in its text, `%fusion.1 = f32[...] fusion(...)`."""
    return text.split(" = ", 1)[0].strip().removeprefix("%")


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
