"""Whether training the runs of a group as one program is faster here than one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

from lm.config import content_hash
from lm.nn.kernels.platform import platform
from lm.sharding import Layout
from lm.sweep.measured import keep, kept
from lm.train.fleet import Alone, Fleet
from lm.train.run import Run

WORTH = 20.0  # a measurement is made where what it costs is at most this share of the group's time: one in twenty
COMPILE = 10.0  # seconds that the two programs of a measurement may take to compile
REPEATS = 3


def vectorised_is_faster(runs: Sequence[Run], where: Layout, path: Path, say: Callable[[str], None] = print) -> bool:
    """True if `runs`, of one group, are better trained as one program on these devices.

    Measured once for a program, a number of runs and a kind of device, and kept in the file `path`. Where the whole
    group would take little longer than measuring it, the backend decides: one program on accelerators and on several
    devices, one after another on one CPU (where an axis of runs was measured to gain nothing).
    """
    key = _key(runs, where)
    speeds = kept(path).get(key)
    if speeds is None:
        usual = platform() != "cpu" or where.mesh.size > 1
        if _seconds(runs) < WORTH * COMPILE:
            return usual
        speeds = measure(runs, where)
        keep(path, key, runs=len(runs), device=jax.devices()[0].device_kind, **speeds)
        say(
            f"{len(runs)} runs as one program: {speeds['together']:,.0f} tokens/s, "
            f"one after another: {speeds['alone']:,.0f} tokens/s"
        )
    return speeds["together"] > speeds["alone"]


def measure(runs: Sequence[Run], where: Layout) -> dict[str, float]:
    """Training tokens a second of the runs as one program ("together") and one after another ("alone"): medians
    over dispatches in turns, compilation not counted. What doesn't fit the memory is 0."""
    found = {"together": 0.0, "alone": 0.0}
    timers = {}
    for name, engine in (("together", Fleet(runs, where)), ("alone", Alone(runs[0], where))):
        try:
            timers[name] = _Timer(engine, runs, where)
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
    speeds: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(REPEATS):
        for name, timer in timers.items():
            speeds[name].append(timer())
    return found | {name: median(each) for name, each in speeds.items()}


class _Timer:
    """Dispatches of one engine, the first of which, compiled, isn't timed."""

    def __init__(self, engine: Alone | Fleet, runs: Sequence[Run], where: Layout) -> None:
        self.engine = engine
        self.lanes = len(runs) if isinstance(engine, Fleet) else 1
        batch = runs[0].dataset().batch(0)
        self.batches: list[Any] = [[batch] * engine.together] * self.lanes
        self.tokens = self.lanes * engine.together * runs[0].data.batch * runs[0].data.length
        state = engine.program.init(runs[0].seed, runs[0].train.init_scale)
        if isinstance(engine, Fleet):
            one = jax.device_get(state)
            state = jax.tree.map(lambda x: jax.device_put(np.stack([x] * engine.size), engine.sharding), one)
        self.state = state
        self()

    def __call__(self) -> float:
        began = time.perf_counter()
        self.state, metrics = self.engine.advance(self.state, self.batches)
        jax.block_until_ready(metrics)
        return self.tokens / (time.perf_counter() - began)


def _seconds(runs: Sequence[Run]) -> float:
    """A guess of what the runs take one after another, from a speed that is low for the platform."""
    return sum(run.flops for run in runs) / (5e10 if platform() == "cpu" else 1e13)


def _key(runs: Sequence[Run], where: Layout) -> str:
    shape = str(dict(where.mesh.shape))
    device = jax.devices()[0].device_kind
    return content_hash([], "together", runs[0].group(""), str(len(runs)), shape, device, jax.__version__)
