"""The loop around the pure step: input, rows, evaluation, checkpoints and signals, nothing else."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

from lm import data, launch
from lm.config import dumps, lift
from lm.data import Dataset
from lm.errors import UserError
from lm.sharding import Layout, layout
from lm.train import peak
from lm.train.checkpoint import Checkpoints
from lm.train.folder import RunFolder
from lm.train.load import evaluate
from lm.train.lock import lock
from lm.train.progress import Progress
from lm.train.provenance import provenance
from lm.train.rows import Rows, read
from lm.train.run import Run
from lm.train.signals import StopRequest
from lm.train.step import Metrics, Program, State, program
from lm.train.writers import writer


class Stopped(UserError):
    """Training was asked to stop, and saved. Running the same command again continues."""


class Diverged(UserError):
    """The loss or the gradient is no number any more."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run needs to know of where it runs; no part of what it is."""

    layout: Layout = field(default_factory=layout)
    log: tuple[str, ...] = ()  # writers besides the run's own rows, by name
    quiet: bool = False


def train(run: Run, folder: str | Path, machine: Machine | None = None) -> dict[str, Any]:
    """Trains `run` in `folder`, or continues there, or returns at once the result of a finished run.

    Returns the result: held-out loss (nats a token) and bits a byte, tokens, seconds and speed. Raises Stopped after
    a signal, Diverged at a NaN, and other UserErrors; what was written by then stays and is continued from.
    """
    home = RunFolder(Path(folder))
    home.check(run, data.fingerprint(run.data))
    if home.status() == "done":
        return home.result()
    with lock(home.path), StopRequest() as stop:
        dataset = data.load(run.data)
        if dataset.vocab > run.model.vocab:
            raise UserError(f"the tokenizer has {dataset.vocab} tokens, model.vocab={run.model.vocab} is too small")
        home.create(run, dataset.tokenizer.dumps(), dataset.fingerprint, provenance())
        try:
            with Trainer(run, home, dataset, machine or Machine()) as trainer:
                result = trainer.run_to_end(stop)
        except Stopped:
            raise
        except Exception as error:
            home.fail(error)
            raise
        home.finish(result)
    if stop.requested:
        raise Stopped(f"stopped after the last step of {home.path}, which is done")
    return result


class Trainer:
    """One run while it is trained. Metrics are read one dispatch late, so the device never waits for the host."""

    def __init__(self, run: Run, home: RunFolder, dataset: Dataset, machine: Machine):
        self.run, self.dataset, self.machine = run, dataset, machine
        shape, self.values = lift(run.train)
        self.program: Program = program(run.model, shape, machine.layout)
        self.checkpoints = Checkpoints(home.checkpoints, keep=run.record.keep)
        self.state, self.step = self._start()
        self.rows = Rows(home.rows)
        self.rows.truncate_after(self.step)
        self.compiling = True  # until the first step is done
        self.evaluations = run.evaluation_steps()
        self.writers = [writer(name, home.path) for name in machine.log]
        self.clock = Clock(run, peak.peak_flops(machine.layout.mesh.devices.flatten().tolist())[0])
        self.progress = Progress(run.train.steps, start=self.step, quiet=machine.quiet)

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.close()
        for open_writer in self.writers:
            open_writer.close()
        self.rows.close()
        self.checkpoints.close()

    def _start(self) -> tuple[State, int]:
        """The newest checkpoint's state, or the initial one."""
        latest = self.checkpoints.latest()
        if latest is None:
            return self.program.init(self.run.seed), 0
        return self.checkpoints.restore(self.program.abstract_state(), latest), latest

    def run_to_end(self, stop: StopRequest) -> dict[str, Any]:
        steps, record = self.run.train.steps, self.run.record
        hosts = {"host": jax.process_index(), "hosts": jax.process_count()}
        source = self.dataset.batches(start=self.step, **hosts) if self.step < steps else iter(())
        pending = None
        while self.step < steps:
            batches = list(itertools.islice(source, self._next_dispatch()))
            self.state, metrics = self.program.advance(self.state, batches, self.values, self.run.steps_at_once)
            if pending is not None:
                self._report(*pending)
            pending = (self.step, metrics, batches)
            self.step += len(batches)
            evaluates = self.step in self.evaluations
            saves = record.checkpoint_every is not None and self.step % record.checkpoint_every == 0
            if evaluates or saves or stop.requested or self.step == steps:
                self._report(*pending)  # a NaN must be seen before anything is saved
                pending = None
                with self.clock.paused():
                    if evaluates:
                        self._evaluate()
                    if saves or stop.requested or self.step == steps:
                        self.rows.sync()
                        self.checkpoints.save(self.step, self.state, dumps(self.run))
            if stop.requested and self.step < steps:
                self.checkpoints.wait()
                raise Stopped(f"stopped at step {self.step} of {steps}, saved; the same command continues from there")
        self.checkpoints.wait()
        return self._result()

    def _next_dispatch(self) -> int:
        """How many steps to do next: as many as are compiled together, but not past an evaluation or a checkpoint."""
        every = self.run.record.checkpoint_every
        stops = {self.run.train.steps, *self.evaluations}
        if every is not None:
            stops.add((self.step // every + 1) * every)
        return min(self.run.steps_at_once, min(s for s in stops if s > self.step) - self.step)

    def _report(self, before: int, metrics: Metrics, batches: list[dict[str, np.ndarray]]) -> None:
        """Reads the metrics of steps that are done, checks them, and writes a row where one is due."""
        found = {name: np.atleast_1d(value).tolist() for name, value in jax.device_get(metrics).items()}
        self.clock.tick(len(batches))
        if self.compiling:
            launch.give_back()
            self.compiling = False
        for index, batch in enumerate(batches):
            step, numbers = before + index + 1, {name: values[index] for name, values in found.items()}
            self._check_finite({name: numbers[name] for name in ("loss", "gradient_norm", "parameter_norm")}, step)
            if step == 1 or step % self.run.record.every == 0 or step == self.run.train.steps:
                per_byte = batch["weights"].sum() / max(self.dataset.bytes_of(batch), 1)
                numbers["bits_per_byte"] = numbers["loss"] * float(per_byte) / math.log(2)
                self._write({"step": step, "split": "train", **numbers, **self.clock.speeds()})
        self.progress.update(step, loss=numbers["loss"], tokens_per_second=self.clock.tokens_per_second)

    def _check_finite(self, numbers: dict[str, float], step: int) -> None:
        """Raises Diverged before anything of a step that isn't finite is saved: its loss, gradient or new weights."""
        bad = [name for name, value in numbers.items() if not math.isfinite(value)]
        if bad:
            last = self.checkpoints.latest()
            good = "there is no checkpoint before it" if last is None else f"the last good checkpoint is step {last}"
            raise Diverged(
                f"{bad[0].replace('_', ' ')} is {numbers[bad[0]]} at step {step} (batch {step - 1}); {good}; "
                "lower train.optimizer.learning_rate or train.clip, or lengthen train.schedule.warmup"
            )

    def _write(self, row: dict[str, Any]) -> None:
        row["tokens"] = row["step"] * self.run.data.batch * self.run.data.length
        self.rows.append(row)
        for open_writer in self.writers:
            open_writer.write(row)

    def _evaluate(self) -> None:
        """The loss over the held-out text, as a row. Evaluates the averaged weights where there are any."""
        params = self.state.ema or self.state.params
        found = evaluate(self.program, params, self.values, self.dataset, self.run.record.heldout_rows)
        self._check_finite({"loss": found["loss"]}, self.step)
        self._write({"step": self.step, "split": "heldout", **found})

    def _result(self) -> dict[str, Any]:
        rows = read(self.rows.path)
        last = [row for row in rows if row["split"] == "heldout"][-1]
        speeds = [row["tokens_per_second"] for row in rows if row.get("tokens_per_second") is not None]
        return {
            "heldout_loss": last["loss"],
            "heldout_bpb": last["bits_per_byte"],
            "heldout_accuracy": last["accuracy"],
            "tokens": self.run.tokens,
            "flops": self.run.flops,
            "tokens_per_second": median(speeds) if speeds else None,
            "seconds": sum(row["seconds"] for row in rows if row.get("seconds") is not None),
        }


class Clock:
    """Training time, without compilation, evaluation and checkpoints."""

    def __init__(self, run: Run, peak_flops: float):
        self.peak_flops = peak_flops
        self.tokens_a_step = run.data.batch * run.data.length
        self.flops_a_step = run.flops / run.train.steps
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
            "seconds": seconds,
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
