"""Training the runs of a group, as one program or one after another, whichever this backend does faster."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from lm import data
from lm.train.fleet import Fleet
from lm.train.folder import RunFolder
from lm.train.lane import AlreadyDone, Lane, Machine, Stopped, opened
from lm.train.loop import Trainer
from lm.train.memory import memory
from lm.train.run import Run
from lm.train.signals import StopRequest

log = logging.getLogger("lm.train")

ROOM = 0.85  # the share of a device's free memory that a fleet may fill


@dataclass(frozen=True)
class Member:
    """A run and where it lives."""

    run: Run
    folder: Path


def train_together(members: Sequence[Member], machine: Machine) -> list[dict[str, Any] | Exception]:
    """Trains runs of one group (`Run.group`) as one program; for each its result, or why it has none.

    Runs that are done, or that another process has, are left out. Those whose checkpoints are at different steps are
    trained in several goes. What doesn't fit the memory is halved. Raises Stopped after a signal.
    """
    outcomes: dict[int, dict[str, Any] | Exception] = {}
    if machine.profile is not None:
        machine.profile.check(members[0].run.train.steps)
    with contextlib.ExitStack() as open_lanes, StopRequest() as stop:
        lanes: dict[int, Lane] = {}
        for index, member in enumerate(members):
            home = RunFolder(member.folder)
            try:
                home.check(member.run, data.fingerprint(member.run.data))
                if home.status() == "done":
                    outcomes[index] = home.result()
                else:
                    lanes[index] = open_lanes.enter_context(opened(member.run, home, machine))
            except AlreadyDone:
                outcomes[index] = home.result()
            except Exception as error:
                outcomes[index] = error
        by_step = sorted(lanes.values(), key=lambda lane: lane.step)
        for _, same in itertools.groupby(by_step, key=lambda lane: lane.step):
            together = list(same)
            size = fitting(together, machine)
            for first in range(0, len(together), size):
                _train(together[first : first + size], machine, stop)
        for index, lane in lanes.items():
            outcomes[index] = lane.error or lane.home.result()
    if stop.requested:
        raise Stopped("stopped; what isn't done is saved, and the same command continues from there")
    return [outcomes[index] for index in range(len(members))]


def _train(lanes: Sequence[Lane], machine: Machine, stop: StopRequest) -> None:
    """Trains lanes as one; where memory runs out, in two halves, each from its newest checkpoints."""
    if stop.requested:
        for lane in lanes:
            lane.fail(Stopped("stopped before it began"))
        return
    if not _runs_out_of_memory(lanes, machine, stop):
        return
    half = len(lanes) // 2
    log.warning("%d runs together don't fit the memory; going on with %d", len(lanes), half)
    for part in (lanes[:half], lanes[half:]):
        left = [lane for lane in part if lane.error is None and lane.home.status() != "done"]
        for lane in left:
            lane.rewind()
        for _, same in itertools.groupby(sorted(left, key=lambda lane: lane.step), key=lambda lane: lane.step):
            _train(list(same), machine, stop)


def _runs_out_of_memory(lanes: Sequence[Lane], machine: Machine, stop: StopRequest) -> bool:
    """Trains lanes as one; True if that needs more memory than there is. Once it returns, nothing of it is kept."""
    try:
        Trainer(lanes, Fleet([lane.run for lane in lanes], machine.layout), machine).run_to_end(stop)
    except Exception as error:
        if out_of_memory(error) and len(lanes) > 1:
            return True
        for lane in lanes:
            if lane.error is None:
                lane.fail(error)
    return False


def fitting(lanes: Sequence[Lane], machine: Machine) -> int:
    """How many of the lanes fit the memory together: by shapes first, then by what the compiler says."""
    devices = machine.layout.mesh.devices.flatten()
    free = free_memory(devices[0])
    if free is None:
        return len(lanes)
    one = memory(lanes[0].run).total
    size = max(1, min(len(lanes), int(ROOM * free / one) * len(devices)))
    while size > 1 and Fleet([lane.run for lane in lanes[:size]], machine.layout).memory() > ROOM * free:
        log.info("%d runs together need too much memory by the compiler's count; trying half", size)
        size = (size + 1) // 2
    return size


def free_memory(device: Any) -> int | None:
    """Bytes free on a device, or on this machine for a CPU; None where that can't be known."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform == "cpu":
        with contextlib.suppress(ValueError, OSError):
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    return None


def out_of_memory(error: Exception) -> bool:
    """Whether an error is the device's memory running out."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
