"""A search: an experiment whose next run depends on how the ones before it ended.

What decides is Optuna (Akiba et al. 2019). How trials are kept and done is in `lm.sweep.study` and `lm.sweep.trials`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lm.config import ConfigError, config, get, replace
from lm.errors import UserError
from lm.sweep.experiment import Experiment, Planned
from lm.sweep.points import check, draws, size
from lm.sweep.space import Distribution
from lm.train.run import Run

if TYPE_CHECKING:
    from lm.analysis import Report

TRIED = 8  # points of the space that are made when it is checked


def optuna() -> Any:
    """The package, with its messages turned off: what it has to say is in the report."""
    try:
        import optuna as package
    except ImportError:
        raise UserError("a search needs Optuna; install it with: pip install 'lm[search]'") from None
    package.logging.set_verbosity(package.logging.WARNING)
    return package


def _at_least(value: Any, **least: int) -> None:
    for name, bound in least.items():
        if getattr(value, name) < bound:
            raise ConfigError(f"{type(value).__name__}.{name}={getattr(value, name)} must be at least {bound}")


# ---- when a trial is given up ----------------------------------------------------------------------------------


@config
class Pruner:
    """Stops trials that look worse than others did. It is asked after every held-out evaluation."""

    def make(self, steps: int) -> Any:
        """Optuna's pruner, for runs of so many steps."""
        raise NotImplementedError

    @property
    def begins(self) -> int:
        """The first step at which a trial may be stopped."""
        raise NotImplementedError


@config
class SuccessiveHalving(Pruner):
    """Of the trials that have come to step `first`, one in `factor` goes on; again at first * factor, and so on.

    Asynchronous: a trial is compared with those that came there before (Li et al. 2020, "ASHA").
    """

    first: int
    factor: int = 4

    def __post_init__(self) -> None:
        _at_least(self, first=1, factor=2)

    def make(self, steps: int) -> Any:
        return optuna().pruners.SuccessiveHalvingPruner(min_resource=self.first, reduction_factor=self.factor)

    @property
    def begins(self) -> int:
        return self.first


@config
class Hyperband(Pruner):
    """Successive halvings side by side that begin at first, first * factor, ... (Li et al. 2018): some stop bad
    trials early, some late, so that a setting that is only slow isn't lost. A trial belongs to one of them."""

    first: int
    factor: int = 3

    def __post_init__(self) -> None:
        _at_least(self, first=1, factor=2)

    def make(self, steps: int) -> Any:
        package = optuna()
        made = package.pruners.HyperbandPruner(
            min_resource=self.first, max_resource=steps, reduction_factor=self.factor
        )
        # it divides trials only once it was asked; the first trials of a search that goes on must be divided alike
        idle = package.trial.create_trial(state=package.trial.TrialState.RUNNING)
        made.prune(package.create_study(pruner=made), idle)
        return made

    @property
    def begins(self) -> int:
        return self.first


@config
class Median(Pruner):
    """Stops a trial whose best loss so far is above the median of the others' at the same step, from step `first` on.

    startup: trials that must have come to their end before (after Golovin et al. 2017).
    """

    startup: int = 5
    first: int = 1

    def __post_init__(self) -> None:
        _at_least(self, startup=1, first=1)

    def make(self, steps: int) -> Any:
        return optuna().pruners.MedianPruner(n_startup_trials=self.startup, n_warmup_steps=self.first)

    @property
    def begins(self) -> int:
        return self.first


# ---- what is tried next ----------------------------------------------------------------------------------------


@config
class Algorithm:
    """How the next trial is chosen. pruner: what stops trials, None to let all of them come to their end."""

    pruner: Pruner | None = None

    def sampler(self, seed: int) -> Any:
        """Optuna's sampler."""
        raise NotImplementedError


@config
class Random(Algorithm):
    """Whatever came before. The one to compare others with, and the one whose trials show a space as it is."""

    def sampler(self, seed: int) -> Any:
        return optuna().samplers.RandomSampler(seed=seed)


@config
class TPE(Algorithm):
    """Where good trials lie denser than bad ones, for all parameters at once (Bergstra et al. 2011; Falkner et al.
    2018). startup: random trials before. candidates: points drawn near good trials, of which the best is taken."""

    startup: int = 10
    candidates: int = 24

    def __post_init__(self) -> None:
        _at_least(self, startup=1, candidates=1)

    def sampler(self, seed: int) -> Any:
        return optuna().samplers.TPESampler(
            seed=seed, n_startup_trials=self.startup, n_ei_candidates=self.candidates, multivariate=True
        )


# ---- the experiment --------------------------------------------------------------------------------------------


@config
class Search(Experiment):
    """Looks for the point of a space with the lowest held-out loss, trial by trial.

    space: path -> distribution. trials: how many in all, those that are stopped early or diverge among them.
    seed: what the algorithm draws by; with one worker it decides every trial, however often the search is interrupted.
    """

    base: Run
    space: dict[str, Distribution]
    trials: int
    algorithm: Algorithm = TPE()
    seed: int = 0

    seeds = 1  # a trial is one run

    def __post_init__(self) -> None:
        _at_least(self, trials=1, seed=0)
        check(self.space)
        for path in self.space:
            get(self.base, path)
        if self.trials > size(self.space):
            raise ConfigError(
                f"trials={self.trials}, but the space has only {size(self.space):.0f} points; Sweep(grid(...)) does all"
            )
        self._check_points()
        pruner, steps = self.algorithm.pruner, self.base.train.steps
        if pruner is not None and self.base.record.evaluations == 0:
            raise ConfigError("a pruner needs losses along the way; set base.record.evaluations to 1 or more")
        if pruner is not None and pruner.begins >= steps:
            raise ConfigError(f"a pruner that begins at step {pruner.begins} stops nothing in runs of {steps} steps")

    def _check_points(self) -> None:
        """Raises the error of the first point if none of some makes a run. Single ones that don't are bad trials."""
        errors = []
        for point in itertools.islice(draws(self.space), TRIED):
            try:
                replace(self.base, point)
            except ConfigError as error:
                errors.append(error)
        if len(errors) == TRIED:
            raise ConfigError(f"no point of the space makes a run: {errors[0]}") from errors[0]

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(self.space)

    def arms_resolved(self) -> dict[str, tuple[Run, dict[str, Any]]]:
        """What trials are made of, and the dearest they may be."""
        return {"base": (self.base, {}), "dearest": (self.dearest(), {})}

    def planned(self) -> tuple[Planned, ...]:
        """None: which runs there will be isn't known before."""
        return ()

    def so_far(self, folder: Path) -> tuple[Planned, ...]:
        from lm.sweep.study import planned

        return planned(self, folder)

    def report(self, **tables: Any) -> Report:
        from lm.analysis.search import search_report

        tables.pop("curves")
        return search_report(axes=list(self.axes), **tables)

    def sampler(self, trial: int, part: int) -> Any:
        """What draws one part of a trial: it depends on nothing that a process remembers."""
        return self.algorithm.sampler(int(np.random.SeedSequence((self.seed, trial, part)).generate_state(1)[0]))

    def dearest(self) -> Run:
        """The run of the space that takes most FLOPs, found path by path: at most those, where no two paths that each
        cost more together cost less."""
        point: dict[str, Any] = {}
        for path, distribution in self.space.items():
            costs = []
            for value in distribution.ends():
                try:
                    costs.append((replace(self.base, {**point, path: value}).flops, value))
                except ConfigError:  # a trial that isn't a run costs nothing
                    continue
            if costs:
                point[path] = max(costs, key=lambda cost: cost[0])[1]
        return replace(self.base, point)
