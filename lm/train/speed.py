"""Training speed of several runs side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from statistics import median

import jax

from lm.config import lift
from lm.sharding import Layout
from lm.train.run import Run
from lm.train.step import program


def training_speeds(
    runs: Mapping[str, Run], layout: Layout, repeats: int = 7, steps: int = 4
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Tokens a second of each run: the median over `repeats` and the range; and why a run couldn't be timed.

    The runs take turns, `steps` steps or a dispatch at a time, so that what else the machine does hits all of them.
    Compilation and the first steps aren't counted.
    """
    timers = {name: _timer(run, layout, steps) for name, run in runs.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    failed: dict[str, str] = {}
    for _ in range(repeats + 1):
        for name, timer in timers.items():
            if name not in failed:
                try:
                    found[name].append(next(timer))
                except Exception as error:  # out of memory, mostly: the other runs are still worth timing
                    failed[name] = str(error).split("\n")[0]
    speeds = {name: times[1:] for name, times in found.items() if name not in failed}
    return {n: {"tokens_per_second": median(s), "low": min(s), "high": max(s)} for n, s in speeds.items()}, failed


def _timer(run: Run, layout: Layout, steps: int) -> Iterator[float]:
    """Trains `steps` steps, or a dispatch of more, at each `next`, and gives their tokens a second."""
    shape, values = lift(run.train)
    compiled = program(run.model, shape, layout)
    batch, together = run.dataset().batch(0), run.steps_at_once
    calls = max(1, steps // together)
    state = compiled.init(run.seed, run.train.init_scale)
    while True:
        began = time.perf_counter()
        for _ in range(calls):
            state, metrics = compiled.advance(state, [batch] * together, values, together)
        jax.block_until_ready(metrics)
        yield calls * together * run.data.batch * run.data.length / (time.perf_counter() - began)
