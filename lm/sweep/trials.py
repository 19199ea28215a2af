"""Doing the trials of a search, beside any number of other processes that do the same one."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from lm import data
from lm.config import ConfigError
from lm.errors import UserError
from lm.sweep import manifest
from lm.sweep.execute import POLL, Outcome, reason_of
from lm.sweep.experiment import short
from lm.sweep.search import Search
from lm.sweep.study import Study, Trial, as_run
from lm.train import hosts
from lm.train.lane import Diverged, Machine, Pruned, Stopped
from lm.train.lock import RunLocked
from lm.train.loop import train
from lm.train.rows import read

Objective = Callable[[Trial], float]  # the loss of a trial that came to its end


class Worthless(UserError):
    """A trial that has no loss and never will: infinitely bad, which teaches the algorithm to keep away."""


class Failed(UserError):
    """A trial whose run has failed for reasons that aren't its own, such as a full disk. It stays open."""


class Hopeless(Failed):
    """One that did so for good: it isn't tried again until `lm sweep retry`."""

    final = True


def search(
    study: Study, objective: Objective, say: Callable[[str], None] = print, wait: bool = False, tries: int = 3
) -> Outcome:
    """Does trials until all of the search have a result, have failed, or are in others' hands.

    objective: raises Pruned once the trial's `judge` said so, Worthless, RunLocked where another has it; what else it
    raises is a failure, after which the trial is tried again, `tries` times in all. Stopped ends the search.
    wait: stay until trials that others hold are done too, and do those whose holders die.
    """
    before = len(study.trials()) - len(study.unfinished())
    done, tried, failed, busy = 0, Counter[int](), {}, {}
    while True:
        given_up = {number for number, times in tried.items() if times >= tries}
        with study.next(skip=given_up | busy.keys()) as trial:
            if trial is not None:
                number, name = trial.number, f"[{trial.number + 1}/{study.experiment.trials}] {_words(trial)}"
                try:
                    said = _do(trial, objective)
                except Stopped:
                    raise
                except RunLocked as locked:
                    busy[number] = f"trial {number}: {locked}"
                except Exception as error:  # a fault of one trial, whatever it is, must not end the others
                    tried[number] += tries if getattr(error, "final", False) else 1
                    failed[number] = f"trial {number}: {error}"
                    say(f"{name} failed: {error}")
                else:
                    done += 1
                    failed.pop(number, None)
                    say(f"{name}: {said}")
                continue
        left = {number: f"trial {number}: another process has it" for number in study.unfinished()}
        left = {number: busy.get(number, line) for number, line in left.items() if number not in given_up}
        if not (wait and left):
            return Outcome(done, before, tuple(failed.values()), tuple(left.values()))
        time.sleep(POLL)
        busy.clear()


def _do(trial: Trial, objective: Objective) -> str:
    """Does a trial and tells its result, which is returned in words."""
    best = trial.study.best()
    try:
        loss = objective(trial)
    except Pruned as pruned:
        return str(pruned)
    except Worthless as reason:
        trial.finish(math.inf, str(reason))
        return str(reason)
    trial.finish(loss)
    return f"held-out loss {loss:.4f} nats" + (", the lowest so far" if loss < best else "")


def train_trials(
    experiment: Search, folder: Path, machine: Machine, say: Callable[[str], None] = print, wait: bool = False
) -> Outcome:
    """The search of which `folder`, results/NAME, keeps the trials: each an ordinary run in results/runs, listed in the
    manifest as it begins. A run that is in the store already costs nothing."""
    if hosts.several():
        raise UserError("a trial of a search is trained by one process; start each worker with its own devices")
    study = Study(experiment, folder, data.fingerprint(experiment.base.data))
    return search(study, lambda trial: loss_of_run(study, trial, machine), say, wait, machine.tries)


def loss_of_run(study: Study, trial: Trial, machine: Machine) -> float:
    """The held-out loss of the trial's run, which is trained as far as it has to be."""
    try:
        run = as_run(study.experiment, trial.number, trial.point)
    except ConfigError as error:
        raise Worthless(f"its values don't fit each other: {error}") from None
    (entry,) = manifest.entries((run,), study.folder.parent)
    with study.asking():
        manifest.add(entry, study.folder / "manifest.jsonl")
    if entry.status() == "done":
        for step, loss in _seen(entry):
            trial.note(step, loss)
        return entry.folder.result()["heldout_loss"]
    for step, loss in _seen(entry):  # of a process that died, or of another search
        if trial.judge(step, loss):
            raise Pruned(f"pruned at step {step} of {run.run.train.steps} with held-out loss {loss:.4f}")
    if entry.folder.diverged():
        raise Worthless(entry.folder.failure())
    if entry.folder.failed_for_good():
        raise Hopeless(entry.folder.failure())
    try:
        judged = dataclasses.replace(machine.fitting(run.run.train.steps), judge=trial.judge)
        return train(run.run, entry.folder.path, judged)["heldout_loss"]
    except Diverged as error:
        raise Worthless(str(error)) from None
    except (Pruned, RunLocked, Stopped):
        raise
    except Exception as error:
        line = reason_of(entry.folder, error)
        raise (Hopeless if entry.folder.failed_for_good() else Failed)(line) from error


def _seen(entry: manifest.Entry) -> Iterator[tuple[int, float]]:
    """The held-out losses that a run has written so far, by step. Not that of its end, by which no trial is judged."""
    for row in read(entry.folder.rows):
        if row["split"] == "heldout" and row["step"] < entry.planned.run.train.steps:
            yield row["step"], row["loss"]


def _words(trial: Trial) -> str:
    """What a trial tries, in short."""
    values = (f"{value:.4g}" if isinstance(value, float) else short(value) for value in trial.point.values())
    names = (path.rsplit(".", 1)[-1] for path in trial.point)
    return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
