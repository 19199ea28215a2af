"""The loop around the pure step: input, rows, evaluation, checkpoints and signals, nothing else."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lm import data, launch
from lm.train import hosts, peak
from lm.train.fleet import Alone, Fleet
from lm.train.folder import RunFolder
from lm.train.lane import AlreadyDone, Diverged, Lane, Machine, Pruned, Stopped, opened
from lm.train.lock import RunLocked
from lm.train.profile import Tracer, too_late
from lm.train.progress import Progress
from lm.train.run import Run
from lm.train.signals import StopRequest
from lm.train.watch import OwnTimes, StepWatch

__all__ = ["Diverged", "Machine", "Pruned", "Stopped", "Trainer", "train"]


def train(run: Run, folder: str | Path, machine: Machine | None = None) -> dict[str, Any]:
    """Trains `run` in `folder`, or continues there, or returns at once the result of a finished run.

    Returns the result: held-out loss (nats a token) and bits a byte, tokens, seconds and speed. Raises Stopped after
    a signal, Diverged at a NaN, and other UserErrors; what was written by then stays and is continued from.
    """
    try:
        return _train(run, RunFolder(Path(folder)), machine or Machine())
    except Exception as error:
        hosts.end_unless_agreed(error)
        raise


def _train(run: Run, home: RunFolder, machine: Machine) -> dict[str, Any]:
    home.check(run, data.fingerprint(run.data))
    if hosts.from_first(home.status() == "done"):
        too_late(machine.profile, home.path)
        return home.result()
    if machine.profile is not None:
        machine.profile.check(run.train.steps)
    with StopRequest() as stop:
        try:
            with opened(run, home, machine) as lane:
                Trainer([lane], Alone(run, machine.layout), machine).run_to_end(stop)
                if lane.error is not None:
                    raise lane.error
        except AlreadyDone:  # by another process, while this one was on its way
            return home.result()
        except RunLocked as error:
            if stop.requested:
                raise hosts.agree_on(Stopped("stopped before it began")) from error
            raise
    if hosts.any_of(stop.requested):
        raise hosts.agree_on(Stopped(f"stopped after the last step of {home.path}, which is done"))
    return home.result()


class Trainer:
    """Runs trained together, step by step. Metrics are read one dispatch late, so the device never waits for the host.

    What goes wrong with one of them ends that one; the others go on.
    """

    def __init__(self, lanes: Sequence[Lane], engine: Alone | Fleet, machine: Machine) -> None:
        self.lanes, self.engine, self.machine = list(lanes), engine, machine
        self.run, self.step = lanes[0].run, lanes[0].step  # they have these in common
        for lane in lanes:
            lane.together = len(lanes)
        self.evaluations, self.snapshots = self.run.evaluation_steps(), self.run.snapshot_steps()
        self.compiling = True  # until the first step is done
        self.clock = Clock(self.run, peak.peak_flops(machine.layout.mesh.devices.flatten().tolist())[0], len(lanes))
        label = f"{len(lanes)} runs" if len(lanes) > 1 else ""
        self.progress = Progress(self.run.train.steps, start=self.step, quiet=machine.quiet, label=label)
        self.tracer = Tracer(machine.profile, lanes[0].home.path, self.clock.paused)
        self.watch, self.own = StepWatch(lanes[0].home.path, hosts.index()), OwnTimes()

    def run_to_end(self, stop: StopRequest) -> None:
        """Until every lane is done or has an error. A request to stop saves all and is an error of each."""
        try:
            with self.watch:
                self._train(stop)
        finally:
            self.tracer.close(self.step)
            self.progress.close()
        self._each(lambda lane, _: lane.finish())

    def _train(self, stop: StopRequest) -> None:
        steps, record = self.run.train.steps, self.run.record
        self._each(lambda lane, _: lane.begin(self.engine.program))
        self.lanes = [lane for lane in self.lanes if lane.error is None]
        if not self.lanes:
            return
        host, of = self.machine.layout.share()
        mine = {"host": host, "hosts": of}
        state = self.engine.start([lane.started() for lane in self.lanes])
        sources = [lane.dataset.batches(start=self.step, **mine) for lane in self.lanes]
        pending = None
        while self.step < steps and self.alive:
            count = self._next_dispatch()
            self.tracer.begin(self.step, state)
            self.watch.begin(self.step, count)
            waited = hosts.waited()
            batches = [list(itertools.islice(source, count)) for source in sources]
            state, metrics = self.engine.advance(state, batches)
            if pending is not None:
                self._report(*pending)
            pending = (self.step, metrics, batches)
            self.step += count
            stopping = hosts.any_of(stop.requested)
            self.own.add(self.watch.seconds() - (hosts.waited() - waited))
            evaluates = self.step in self.evaluations
            saves = record.checkpoint_every is not None and self.step % record.checkpoint_every == 0
            keeps = self.step in self.snapshots
            settles = evaluates or saves or keeps or stopping or self.step == steps
            if settles:
                self._report(*pending)  # a NaN must be seen before anything is saved, and a hang by the step's median
                pending = None
            self.watch.done()
            self.tracer.end(self.step, state)
            if settles:
                with self.clock.paused():
                    if evaluates:
                        self._evaluate(state)
                    if keeps:
                        self._snapshot(state)
                    if saves or stopping or self.step == steps:
                        self._save(state)
            if stopping and self.step < steps:
                self._each(self._stopped)

    @property
    def alive(self) -> bool:
        return any(lane.error is None for lane in self.lanes)

    def _each(self, act: Callable[[Lane, int], None]) -> None:
        """Does something for every lane that goes on."""
        for index, lane in enumerate(self.lanes):
            if lane.error is None:
                try:
                    act(lane, index)
                except Exception as error:  # whatever it is, it must not end the others
                    hosts.end_if_lost(error)
                    lane.fail(error)
                error = hosts.shared(lane.error)
                if error is not None and lane.error is None:
                    lane.fail(error)

    def _next_dispatch(self) -> int:
        """How many steps to do next: as many as are compiled together, but not past an evaluation or a checkpoint."""
        every = self.run.record.checkpoint_every
        stops = {self.run.train.steps, *self.evaluations, *self.snapshots, *self.tracer.stops}
        if every is not None:
            stops.add((self.step // every + 1) * every)
        return min(self.engine.together, min(s for s in stops if s > self.step) - self.step)

    def _report(self, before: int, metrics: dict[str, jax.Array], batches: list[list[Any]]) -> None:
        """Reads the metrics of steps that are done and hands them to the lanes."""
        lanes = len(self.lanes)
        found = {name: np.asarray(v).reshape(-1, v.shape[-1] if v.ndim else 1)[:lanes] for name, v in metrics.items()}
        done = len(batches[0])
        self.clock.tick(done)
        if self.compiling:
            launch.give_back()
            self.compiling = False
            self.own.clear()
        speeds = {}
        if any(self.lanes[0].due(before + index + 1) for index in range(done)):
            speeds = self.clock.speeds()
            self.own.compare()
        lists = [{name: value[i].tolist() for name, value in found.items()} for i in range(lanes)]
        self._each(lambda lane, i: lane.report(before, lists[i], batches[i], speeds))
        losses = [own["loss"][done - 1] for own in lists]
        loss = float(np.median(losses))
        self.progress.update(before + done, loss=loss, tokens_per_second=self.clock.tokens_per_second)

    def _evaluate(self, state: Any) -> None:
        found = self.engine.evaluate(state, self.lanes)
        self._each(lambda lane, i: lane.check_finite({"loss": found[i]["loss"]}, self.step))
        if self.run.record.measures:
            self._each(lambda lane, i: lane.measure(self.step, self.engine.weights(state, i)))
        self._each(lambda lane, i: lane.evaluated(self.step, found[i]))
        if self.machine.judge is not None and self.step < self.run.train.steps:
            self._each(lambda lane, i: self._judge(state, lane, i, found[i]["loss"]))

    def _judge(self, state: Any, lane: Lane, index: int, loss: float) -> None:
        if self.machine.judge(self.step, loss):
            lane.save(self.step, self.engine.lane(state, index))
            lane.checkpoints.wait()
            raise Pruned(f"pruned at step {self.step} of {self.run.train.steps} with held-out loss {loss:.4f}, saved")

    def _snapshot(self, state: Any) -> None:
        self._each(lambda lane, i: lane.snapshot(self.step, self.engine.weights(state, i)))

    def _save(self, state: Any) -> None:
        self._each(lambda lane, i: lane.save(self.step, self.engine.lane(state, i)))

    def _stopped(self, lane: Lane, index: int) -> None:
        lane.checkpoints.wait()
        steps = self.run.train.steps
        raise Stopped(f"stopped at step {self.step} of {steps}, saved; the same command continues from there")


class Clock:
    """Training time, without compilation, evaluation and checkpoints. Of runs trained together, each gets its share:
    the seconds of all of them add up to what the device was used for."""

    def __init__(self, run: Run, peak_flops: float, runs: int = 1):
        self.peak_flops, self.runs = peak_flops, runs
        self.tokens_a_step = run.data.batch * run.data.length * runs
        self.flops_a_step = run.flops / run.train.steps * runs
        self.tokens_per_second: float | None = None
        self._since: float | None = None  # when the stretch being timed began; None before the first step is done
        self._steps = 0

    def tick(self, steps: int) -> None:
        """Steps are done. The first ones only start the clock: they were compiled."""
        if self._since is None:
            self._since, self._steps = time.perf_counter(), 0
        else:
            self._steps += steps
            self.tokens_per_second = self._steps * self.tokens_a_step / (time.perf_counter() - self._since)

    def paused(self) -> _Pause:
        """A scope that isn't counted."""
        return _Pause(self)

    def speeds(self) -> dict[str, float | None]:
        """Seconds and speed since the last call; None where no step was timed."""
        if self._since is None or not self._steps:
            return {"seconds": None, "tokens_per_second": None, "mfu": None}
        now = time.perf_counter()
        seconds, steps = now - self._since, self._steps
        self._since, self._steps = now, 0
        return {
            "seconds": seconds / self.runs,
            "tokens_per_second": steps * self.tokens_a_step / seconds,
            "mfu": steps * self.flops_a_step / seconds / self.peak_flops,
        }


class _Pause:
    def __init__(self, clock: Clock):
        self.clock = clock

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.clock._since is not None:
            self.clock._since += time.perf_counter() - self.began
