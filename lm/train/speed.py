"""Training speed of several runs side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from statistics import median

import jax

from lm import data
from lm.config import lift
from lm.sharding import layout
from lm.train.run import Run
from lm.train.step import program


def training_speeds(runs: Mapping[str, Run], repeats: int = 5, steps: int = 4) -> dict[str, dict[str, float]]:
    """Tokens a second of each run: the median over `repeats` and the range.

    The runs take turns, `steps` steps at a time, so that what else the machine does hits all of them. Compilation and
    the first steps aren't counted.
    """
    timers = {name: _timer(run, steps) for name, run in runs.items()}
    for timer in timers.values():
        next(timer)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, timer in timers.items():
            found[name].append(next(timer))
    return {
        name: {"tokens_per_second": median(speeds), "low": min(speeds), "high": max(speeds)}
        for name, speeds in found.items()
    }


def _timer(run: Run, steps: int) -> Iterator[float]:
    """Trains `steps` steps at each `next`, and gives their tokens a second."""
    where = layout()
    shape, values = lift(run.train)
    compiled = program(run.model, shape, where)
    batch = where.put(data.load(run.data).batch(0))
    state = compiled.init(run.seed)
    while True:
        began = time.perf_counter()
        for _ in range(steps):
            state, metrics = compiled.step(state, batch, values)
        jax.block_until_ready(metrics)
        yield steps * run.data.batch * run.data.length / (time.perf_counter() - began)
