"""One run while it is trained: what it reads, and the rows, checkpoints and result that it writes."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from lm.config import dumps
from lm.data import Dataset
from lm.errors import UserError
from lm.nn import param
from lm.sharding import Layout, layout
from lm.train import hosts
from lm.train.checkpoint import Checkpoints
from lm.train.folder import RunFolder
from lm.train.lock import Lease, LeaseLost, lock
from lm.train.measure import Look, prepared
from lm.train.profile import Window
from lm.train.provenance import clock, provenance
from lm.train.rows import Rows, read
from lm.train.run import Run
from lm.train.signals import STOPPED
from lm.train.step import Program, State
from lm.train.writers import writer

log = logging.getLogger(__name__)


class Stopped(UserError):
    """Training was asked to stop, and saved. Running the same command again continues."""

    exit_code = STOPPED


class Diverged(UserError):
    """The loss or the gradient is no number any more. Trying again would give the same bits."""

    final = True


class AlreadyDone(Exception):
    """Another process finished the run before this one had it."""


class Pruned(UserError):
    """Training was stopped because the run isn't worth more; it is saved and can be continued."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run needs to know of where it runs; no part of what it is."""

    layout: Layout = field(default_factory=layout)
    log: tuple[str, ...] = ()  # writers besides the run's own rows, by name
    quiet: bool = False
    tries: int = 3  # how often a run may die at the same step before it counts as failed
    judge: Any = None  # (step, held-out loss) -> True to stop a run that isn't worth more
    profile: Window | None = None  # steps to trace

    def fitting(self, steps: int) -> Machine:
        """This machine for a run of so many steps in a sweep: one that ends before the profile's does has none."""
        if self.profile is None or self.profile.last <= steps:
            return self
        log.warning("a run of %d steps isn't profiled up to step %d", steps, self.profile.last)
        return replace(self, profile=None)


class Lane:
    """A run that this process holds, from where its newest checkpoint left it. `error`: why it goes no further."""

    def __init__(self, run: Run, home: RunFolder, dataset: Dataset, lease: Lease | None, machine: Machine) -> None:
        self.run, self.home, self.dataset, self.lease = run, home, dataset, lease
        self.error: Exception | None = None
        self.together = 1  # runs that its program has
        self.tries = machine.tries
        self._state: State | None = None
        self.looks: dict[str, Look] = {}
        self.checkpoints = Checkpoints(home.checkpoints, keep=run.record.keep)
        self.snapshots = Checkpoints(home.snapshots, keep=None)
        writes = hosts.first()  # of several processes one writes
        self.rows = Rows(home.rows) if writes else None
        self.details = Rows(home.details) if writes and run.record.measures else None
        self.rewind()
        self.writers = [writer(name, home.path) for name in machine.log] if hosts.first() else []

    def rewind(self) -> None:
        """Back to the newest checkpoint whose rows are all there, to be trained from there again.

        A process that stood still, and lost its lease, may finish a checkpoint that it had begun: ahead of the rows
        of the one that took over. The steps between would never get rows.
        """
        steps = self.checkpoints.steps()  # before the processes agree on one: none has deleted any yet
        self.step = hosts.from_first(self._last_whole(steps) if hosts.first() else 0)
        ahead = [step for step in steps if step > self.step]
        if ahead:
            log.warning("%s: the rows up to %s aren't all there; its checkpoint is deleted", self.home.path, ahead)
            self.checkpoints.drop(ahead)
        self.snapshots.truncate_after(self.step)
        for file in (self.rows, self.details):
            if file is not None:
                file.truncate_after(self.step)

    def _last_whole(self, steps: Sequence[int]) -> int:
        evaluations = self.run.evaluation_steps()
        written = {(row["step"], row["split"]) for row in read(self.home.rows)}

        def whole(step: int) -> bool:
            rows = max(s for s in range(1, step + 1) if self.due(s))
            evaluated = max((s for s in evaluations if s <= step), default=None)
            return (rows, "train") in written and (evaluated is None or (evaluated, "heldout") in written)

        return max((step for step in steps if whole(step)), default=0)

    def close(self) -> None:
        for open_file in (*self.writers, self.rows, self.details):
            if open_file is not None:
                open_file.close()
        self.checkpoints.close()
        self.snapshots.close()

    def begin(self, program: Program) -> None:
        """Counts the try, and makes or reads the state to begin with."""
        hosts.on_first(lambda: self.home.count_try(self.step, self.tries))
        self.looks = {each.name: prepared(each, program, self.run.data) for each in self.run.record.measures}
        if self.step == 0:
            self._state = program.init(self.run.seed, self.run.train.init_scale)
        else:
            self._state = self.checkpoints.restore(program.abstract_state(), self.step)

    def started(self) -> State:
        """That state, handed over: the program that goes on with it donates it."""
        state, self._state = self._state, None
        assert state is not None
        return state

    def report(self, before: int, found: dict[str, list[float]], batches: list[Any], speeds: dict[str, Any]) -> None:
        """Checks the metrics of steps that are done, and writes a row where one is due."""
        for index, batch in enumerate(batches):
            step, numbers = before + index + 1, {name: values[index] for name, values in found.items()}
            self.check_finite({name: numbers[name] for name in ("loss", "gradient_norm", "parameter_norm")}, step)
            if self.due(step):
                per_byte = batch["weights"].sum() / max(self.dataset.bytes_of(batch), 1)
                numbers["bits_per_byte"] = numbers["loss"] * float(per_byte) / math.log(2)
                self.write({"step": step, "split": "train", **numbers, **speeds})
                speeds = dict.fromkeys(speeds)  # they were of all the time since the row before

    def due(self, step: int) -> bool:
        """Whether a row of training metrics is written after this step."""
        return step == 1 or step % self.run.record.every == 0 or step == self.run.train.steps

    def measure(self, step: int, params: param.Params) -> None:
        """What the run's measures find in these weights."""
        all_found = {name: look(params) for name, look in self.looks.items()}  # all processes compute
        for name, found in all_found.items():  # one writes, and the others don't wait for it in a look if it can't
            if clash := found.numbers.keys() & {"step", "split", "tokens"}:
                raise UserError(f"measure {name} calls a number '{min(clash)}', which a row has of its own; rename it")
            if self.details is not None and found.details:
                self._check_lease()
                self.details.append({"step": step, "split": name, **found.details})
            self.write({"step": step, "split": name, **found.numbers})

    def evaluated(self, step: int, found: dict[str, Any]) -> None:
        """The loss over what is held out, as a row: the last one of an evaluation, by which a resumed run knows that
        the rest of it is there, too."""
        self.write({"step": step, "split": "heldout", **found})

    def check_finite(self, numbers: dict[str, float], step: int) -> None:
        """Raises Diverged before anything of a step that isn't finite is saved: its loss, gradient or new weights."""
        bad = [name for name, value in numbers.items() if not math.isfinite(value)]
        if bad:
            last = self.checkpoints.latest()
            good = "there is no checkpoint before it" if last is None else f"the last good checkpoint is step {last}"
            raise Diverged(
                f"{bad[0].replace('_', ' ')} is {numbers[bad[0]]} at step {step} (batch {step - 1}); {good}; "
                "lower train.optimizer.learning_rate or train.clip, or lengthen train.schedule.warmup"
            )

    def write(self, row: dict[str, Any]) -> None:
        if self.rows is None:
            return
        self._check_lease()
        row["tokens"] = row["step"] * self.run.data.batch * self.run.data.length
        self.rows.append(row)
        for open_writer in self.writers:
            open_writer.write(row)

    def snapshot(self, step: int, params: param.Params) -> None:
        """Keeps these weights for good."""
        hosts.on_first(self._check_lease)
        self.snapshots.save(step, {"params": params}, dumps(self.run))

    def save(self, step: int, state: State) -> None:
        self.snapshots.wait()  # what goes on from this checkpoint doesn't make those before it again
        hosts.on_first(self._settle)  # all processes go on to save together, or none does
        self.checkpoints.save(step, state, dumps(self.run))

    def _settle(self) -> None:
        """What is written so far is this process's own, and would survive a power cut."""
        self._check_lease()
        for file in (self.rows, self.details):
            if file is not None:
                file.sync()

    def finish(self) -> None:
        self.checkpoints.wait()
        self.snapshots.wait()
        hosts.on_first(self._finish)

    def _finish(self) -> None:
        self._check_lease()
        self.home.finish(self._result())

    def _check_lease(self) -> None:
        if self.lease is not None:
            self.lease.check()

    def fail(self, error: Exception) -> None:
        """Goes no further; says why in the folder, unless that is another's by now or the run was only stopped."""
        self.error = error
        if self.lease is None or isinstance(error, LeaseLost):
            return
        with contextlib.suppress(LeaseLost, OSError):  # what another process has by now isn't this one's to write to
            self.lease.beat()
            if isinstance(error, Stopped | Pruned):
                self.home.retry()
            else:
                self.home.fail(error)

    def _result(self) -> dict[str, Any]:
        rows = read(self.home.rows)
        last = [row for row in rows if row["split"] == "heldout"][-1]
        speeds = [row["tokens_per_second"] for row in rows if row.get("tokens_per_second") is not None]
        return {
            "heldout_loss": last["loss"],
            "heldout_bpb": last["bits_per_byte"],
            "heldout_accuracy": last["accuracy"],
            "tokens": self.run.tokens,
            "flops": self.run.flops,
            "together": self.together,
            "tokens_per_second": median(speeds) if speeds else None,
            "seconds": sum(row["seconds"] for row in rows if row.get("seconds") is not None),
        }


@contextlib.contextmanager
def opened(run: Run, home: RunFolder, machine: Machine) -> Iterator[Lane]:
    """Takes the run's folder for the time of a `with`; an error inside is noted in it.

    Raises RunLocked if another process has it, RunError and DataError if folder or data don't fit the run.
    """
    with contextlib.ExitStack() as held:
        lease = hosts.on_first(lambda: held.enter_context(lock(home.path)))
        if hosts.from_first(home.status() == "done"):
            raise AlreadyDone
        dataset = run.dataset()
        if dataset.vocab > run.model.vocab:
            extra = f", {run.train.objective.extra} of them the objective's" if run.train.objective.extra else ""
            raise UserError(
                f"the tokenizer has {dataset.vocab} tokens{extra}, model.vocab={run.model.vocab} is too small"
            )
        origin = {**_origin(Path.cwd()), "time": clock()}
        hosts.on_first(lambda: home.create(run, dataset.tokenizer.dumps(), dataset.fingerprint, origin))
        try:
            lane = Lane(run, home, dataset, lease, machine)
        except Exception as error:
            if hosts.first():
                home.fail(error)
            raise
        try:
            yield lane
        except Exception as error:
            hosts.end_if_lost(error)
            if lane.error is None:
                lane.fail(error)
            hosts.end_unless_agreed(error)  # here, since closing waits for the others
            raise
        finally:
            lane.close()


@functools.cache
def _origin(folder: Path) -> dict[str, Any]:
    """Asked once a process: the code it runs is what was there when it began, and a sweep has many runs."""
    return provenance(folder)
