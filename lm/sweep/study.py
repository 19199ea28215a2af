"""The trials of a search as they are kept: Optuna's journal, results/NAME/study.log, which any number of processes may
read and write at once, also on a shared file system.

A trial that was asked for is open until its result is told. Who works on it holds its folder in results/NAME/locks,
so an open trial that nobody holds was left behind by a process that died, and is given out before any new one.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.config import ConfigError, diff, dumps, loads, replace
from lm.errors import UserError
from lm.sweep.experiment import Planned, short
from lm.sweep.search import Search, optuna
from lm.train.lock import RunLocked, held, lock
from lm.train.rows import whole

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study as OptunaStudy
    from optuna import Trial as OptunaTrial
    from optuna.trial import FrozenTrial

FILE = "study.log"
NAME = "search"  # of the one study in a file; brackets of Hyperband depend on it
OF = "experiment"  # where a study keeps what it is of: the search and the fingerprint of its data
PATIENCE = 0.005  # seconds between two looks at whether it is our turn
FEWEST = 10  # finished trials of which parameter importances are made


class StudyError(UserError):
    """A study that can't be read, or that is of another search."""


class Trial:
    """A trial that this process holds. `point`: what it tries."""

    def __init__(self, study: Study, mine: OptunaTrial, point: dict[str, Any]) -> None:
        self.study, self.number, self.point, self._mine = study, mine.number, point, mine
        kept = study.frozen(mine.number)
        self._last = max(kept.intermediate_values, default=-1)
        # Optuna's successive halving notes that a trial has come to a step, and then decides. Whether a process that
        # died between the two had decided isn't known: forgotten here, the last step's notes are made again
        for name, loss in list(kept.system_attrs.items()):
            if name.startswith("completed_rung_") and loss == kept.intermediate_values[self._last]:
                del kept.system_attrs[name]

    def note(self, step: int, loss: float) -> bool:
        """Keeps the loss of a step, for others to be compared with; whether the pruner would stop here."""
        if step < self._last:  # it is done again after a break, and was judged before
            return False
        if step > self._last:
            self._mine.report(loss, step)
            self._last = step
        return self._mine.should_prune()

    def judge(self, step: int, loss: float) -> bool:
        """Whether to stop here; if so, the trial is over."""
        stop = self.note(step, loss)
        if stop:
            self.study.tell(self.number, None)
        return stop

    def finish(self, loss: float, why: str = "") -> None:
        """Its result; an infinite one with the reason why."""
        if why:
            self._mine.set_user_attr("why", why)
        self.study.tell(self.number, loss)


class Study:
    """The trials of `experiment`, kept in `folder`. data: the fingerprint of the base's data.

    Raises StudyError where the folder has those of a search that differs in anything but its number of trials.
    """

    def __init__(self, experiment: Search, folder: Path, data: str = "") -> None:
        self.experiment, self.folder = experiment, folder
        folder.mkdir(parents=True, exist_ok=True)
        with self.asking():
            storage = _storage(folder / FILE, mend=True)
            pruner = experiment.algorithm.pruner
            self._study: OptunaStudy = optuna().create_study(
                storage=storage,
                study_name=NAME,
                direction="minimize",
                sampler=experiment.sampler(0, 0),
                pruner=pruner.make(experiment.base.train.steps) if pruner else optuna().pruners.NopPruner(),
                load_if_exists=True,
            )
            kept, mine = self._study.user_attrs.get(OF), [dumps(experiment), data]
            if kept is not None:
                _check_same(kept, experiment, data, folder / FILE)
            if kept != mine:  # the first time, or with another number of trials
                self._study.set_user_attr(OF, mine)

    def asking(self) -> contextlib.AbstractContextManager[None]:
        """One process at a time, of all machines: who decides what is tried next, or writes to the manifest."""
        return _turn(self.folder / "locks" / "ask")

    @contextlib.contextmanager
    def next(self, skip: Container[int] = ()) -> Iterator[Trial | None]:
        """A trial for the time of a `with`: an open one that nobody holds, else a new one; None if there is neither.

        skip: open ones that aren't wanted now.
        """
        with contextlib.ExitStack() as holding:
            with self.asking():
                number = self._unheld(skip, holding)
                if number is None and len(self.trials()) < self.experiment.trials:
                    number = self._create()
                    holding.enter_context(lock(self._claim(number)))
                trial = None if number is None else self._drawn(number)
            yield trial

    def trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def frozen(self, number: int) -> FrozenTrial:
        return self.trials()[number]

    def unfinished(self) -> list[int]:
        """The trials without a result."""
        return [trial.number for trial in self.trials() if not trial.state.is_finished()]

    def over(self) -> bool:
        """Whether all that was to be tried has a result."""
        return len(self.trials()) >= self.experiment.trials and not self.unfinished()

    def best(self) -> float:
        """The lowest loss so far, infinite if there is none."""
        return min((loss_of(trial) for trial in self.trials() if state_of(trial) == "complete"), default=math.inf)

    def tell(self, number: int, loss: float | None) -> None:
        """The result of a trial, None for one that was stopped early."""
        states = optuna().trial.TrialState
        self._study.tell(number, loss, states.PRUNED if loss is None else states.COMPLETE, skip_if_finished=True)

    def _unheld(self, skip: Container[int], holding: contextlib.ExitStack) -> int | None:
        for number in self.unfinished():
            if number not in skip and not held(self._claim(number)):
                with contextlib.suppress(RunLocked):
                    holding.enter_context(lock(self._claim(number)))
                    return number
        return None

    def _claim(self, number: int) -> Path:
        return self.folder / "locks" / f"trial-{number}"

    def _create(self) -> int:
        return self._study.ask().number

    def _drawn(self, number: int) -> Trial:
        """The trial with its point, of which an earlier process may have drawn a part.

        Every part is drawn by a sampler of its own, so it comes out the same whoever draws it, and when.
        """
        self._study.sampler = self.experiment.sampler(number, 0)
        mine = optuna().Trial(self._study, self.frozen(number)._trial_id)  # Optuna gives no other way back to a trial
        _ = mine.relative_params  # what is drawn together, before any of it is kept
        point = {}
        for part, (path, distribution) in enumerate(sorted(self.experiment.space.items()), start=1):
            self._study.sampler = self.experiment.sampler(number, part)
            point[path] = distribution.suggest(mine, path)
        return Trial(self, mine, point)


# ---- reading ---------------------------------------------------------------------------------------------------


def stored(folder: Path) -> tuple[Search, str] | None:
    """The search that `folder` keeps the trials of, with the fingerprint of its data; None if there is none."""
    study = _reading(folder)
    if study is None or OF not in study.user_attrs:
        return None
    text, data = study.user_attrs[OF]
    return loads(text), data


def finished(folder: Path) -> int:
    """How many trials kept in `folder` have a result."""
    study = _reading(folder)
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)) if study else 0


def planned(experiment: Search, folder: Path) -> tuple[Planned, ...]:
    """The trials asked for so far as runs of the experiment."""
    study = _reading(folder)
    found = []
    for trial in study.get_trials(deepcopy=False) if study else ():
        point = point_of(experiment, trial)
        with contextlib.suppress(ConfigError):  # a trial that makes no run
            if point is not None:
                found.append(as_run(experiment, trial.number, point))
    return tuple(found)


def as_run(experiment: Search, number: int, point: dict[str, Any]) -> Planned:
    """A trial as a run. Raises ConfigError if its values don't fit each other."""
    return Planned(replace(experiment.base, point), f"trial {number}", 0, point)


def point_of(experiment: Search, trial: FrozenTrial) -> dict[str, Any] | None:
    """What a kept trial tries, None as long as a part of it isn't drawn."""
    if trial.params.keys() != experiment.space.keys():
        return None
    fixed = optuna().trial.FixedTrial(trial.params)
    return {path: distribution.suggest(fixed, path) for path, distribution in experiment.space.items()}


def state_of(trial: FrozenTrial) -> str:
    """complete, pruned, failed (its loss is infinite) or open."""
    if not trial.state.is_finished():
        return "open"
    if trial.value is not None and math.isinf(trial.value):
        return "failed"
    return trial.state.name.lower()


def loss_of(trial: FrozenTrial) -> float:
    """Its loss, or the last one seen; NaN if there is none."""
    if trial.value is not None:
        return trial.value
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else math.nan


def tables(experiment: Search, folder: Path) -> dict[str, pd.DataFrame]:
    """For the report. `trials`: a row each: trial, state, heldout_loss, the step where it was stopped, why it has no
    loss, and the paths of the space. `importances`: path and importance, empty of too few trials."""
    import pandas as pd

    study = _reading(folder)
    rows = []
    for trial in study.get_trials(deepcopy=False) if study else ():
        point = point_of(experiment, trial) or {}
        state, why = state_of(trial), trial.user_attrs.get("why", "")
        row = {"trial": trial.number, "state": state, "heldout_loss": loss_of(trial), "why": why}
        row["step"] = trial.last_step if state == "pruned" else None
        values = {p: v if isinstance(v, int | float | str) else short(v) for p, v in point.items()}
        rows.append(row | {path: values.get(path) for path in experiment.space})
    columns = ["trial", "state", "heldout_loss", "step", "why", *experiment.space]
    shares = importances(study) if study else {}
    return {
        "trials": pd.DataFrame(rows, columns=pd.Index(columns)),
        "importances": pd.DataFrame(list(shares.items()), columns=pd.Index(["path", "importance"])),
    }


def importances(study: OptunaStudy) -> dict[str, float]:
    """How unlike the best trials' values of each parameter are to those of all trials, as shares of 1: PED-ANOVA
    (Watanabe et al. 2023). {} of fewer than FEWEST finished trials, or of a single parameter."""
    good = [trial for trial in study.get_trials(deepcopy=False) if state_of(trial) == "complete"]
    if len(good) < FEWEST or len(good[0].params) < 2:
        return {}
    package = optuna()
    best = max(0.1, 5 / len(good))  # at least 5 trials, as the method needs
    evaluator = package.importance.PedAnovaImportanceEvaluator(target_quantile=best)
    return package.importance.get_param_importances(study, evaluator=evaluator)


def _reading(folder: Path) -> OptunaStudy | None:
    """The study of a folder, to be looked at only."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return optuna().load_study(study_name=NAME, storage=_storage(path))
    except KeyError:  # made a moment ago
        return None


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Waits for a lock, and holds it."""
    with contextlib.ExitStack() as holding:
        while True:
            try:
                holding.enter_context(lock(folder))
                break
            except RunLocked:
                time.sleep(PATIENCE)
        yield


class _Turn:
    """A lock as Optuna's journal wants one. Its own kinds are held on for half a minute after their holder's death."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held = threading.local()

    def take(self) -> contextlib.AbstractContextManager[None]:
        return _turn(self.folder)

    def acquire(self) -> bool:
        self._held.by = contextlib.ExitStack()
        self._held.by.enter_context(self.take())
        return True

    def release(self) -> None:
        self._held.by.close()


def _storage(path: Path, mend: bool = False) -> Any:
    """The journal. mend: cut off a line that a full disk or a power cut left unfinished."""
    journal, turn = optuna().storages.journal, _Turn(path.parent / "locks" / "journal")
    try:
        if mend and path.exists():
            with turn.take():
                if (end := whole(text := path.read_bytes())) < len(text):
                    os.truncate(path, end)
        return optuna().storages.JournalStorage(journal.JournalFileBackend(str(path.absolute()), lock_obj=turn))
    except ValueError:
        lines = path.read_bytes().splitlines(keepends=True)
        bad = next((i for i, line in enumerate(lines, start=1) if not whole(line)), len(lines))
        again = "remove that line, or the file: finished runs are kept"
        raise StudyError(f"{path} line {bad} is damaged; {again}") from None
    except OSError as error:
        raise StudyError(f"{path} can't be read or written: {error.strerror}") from error


def _check_same(kept: list[str], experiment: Search, data: str, path: Path) -> None:
    """Raises StudyError if what is kept is another search's."""
    again = "give the search another file name, or remove that file: finished runs are kept"
    try:
        changes = diff(loads(kept[0]), experiment)
    except ConfigError as error:
        raise StudyError(f"{path} is of a search that this version can't read ({error}); {again}") from None
    changes.pop("trials", None)
    if changes:
        name, (old, new) = next(iter(changes.items()))
        raise StudyError(f"{path} is of another search ({name} is {old} there, {new} here); {again}")
    if kept[1] != data:
        raise StudyError(f"the data has changed since {path} began ({kept[1]} then, {data} now); {again}")
