"""Experiments as values: a sweep and an ablation, each of which expands to runs."""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lm.config import ConfigError, config, get, is_config, replace, unknown
from lm.early import NGram
from lm.sweep.match import at_flops, matched, quantity
from lm.train.run import Run

if TYPE_CHECKING:
    from lm.analysis import Report


@dataclass(frozen=True)
class Planned:
    """One run of an experiment, with what sets it apart from the others."""

    run: Run
    arm: str
    seed: int
    point: dict[str, Any]

    @property
    def label(self) -> str:
        return f"{self.arm} seed {self.seed}"


class Experiment(abc.ABC):
    """A question that expands to runs. Run number s of an arm has `seed` and `data.seed` s more than the base's."""

    base: Run
    seeds: int

    @property
    def axes(self) -> tuple[str, ...]:
        """The paths that are varied, as far as the report is about them: columns of its table of runs."""
        return ()

    @abc.abstractmethod
    def report(self, **tables: Any) -> Report:
        """The report, from title, question, command, and the tables runs and curves. Needs no JAX."""

    @abc.abstractmethod
    def arms_resolved(self) -> dict[str, tuple[Run, dict[str, Any]]]:
        """Each arm's name -> (its run, the point that makes it), without seeds."""

    def planned(self) -> tuple[Planned, ...]:
        """Every run, seed by seed, so that arms take turns and share what the machine does meanwhile."""
        arms = self.arms_resolved()
        return tuple(
            Planned(replace(run, {"seed": run.seed + s, "data.seed": run.data.seed + s}), arm, s, point)
            for s in range(self.seeds)
            for arm, (run, point) in arms.items()
        )

    def so_far(self, folder: Path) -> tuple[Planned, ...]:
        """The runs that are known of by now, which is all of them but in a search. folder: where its results are."""
        return self.planned()

    def check_seeds(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"seeds={self.seeds} must be at least 1")


@config
class Sweep(Experiment):
    """The base at every point. Points come from `grid`, `zipped`, `chain` and `cross`."""

    base: Run
    points: tuple[dict[str, Any], ...]
    seeds: int = 1

    def __post_init__(self) -> None:
        self.check_seeds()
        if not self.points:
            raise ConfigError("this sweep has no points; give it some, e.g. points=grid({'seed': [0, 1]})")

    @property
    def axes(self) -> tuple[str, ...]:
        """Every path that a point sets."""
        return tuple(dict.fromkeys(path for point in self.points for path in point))

    def arms_resolved(self) -> dict[str, tuple[Run, dict[str, Any]]]:
        arms: dict[str, tuple[Run, dict[str, Any]]] = {}
        for point in self.points:
            name = ", ".join(f"{path.rsplit('.', 1)[-1]}={short(value)}" for path, value in point.items()) or "base"
            if name in arms:
                raise ConfigError(f"two points of the sweep are equal: {name}")
            arms[name] = (replace(self.base, point), dict(point))
        return arms

    def report(self, **tables: Any) -> Report:
        from lm.analysis import sweep_report

        return sweep_report(axes=list(self.axes), **tables)


@config
class Ablation(Experiment):
    """Alternatives of one part of a model, trained on the same batches in the same order, compared seed by seed.

    arms: name -> the value at path `at`, or a dict of paths and values. The first arm is the baseline.
    match: the quantity that is made equal to the baseline's by changing `adjust` in steps of `multiple`:
    "params", "active" (of them, for one token), "flops" (of a forward pass) or "kv_bytes" (of the cache). adjust: a
    path, or those of some arms by name; None: the feed-forward width, or for kv_bytes, which it can't change, the width
    of a head. budget: what of the training is equal, its "steps" or its "flops"; with those, arms of cheaper steps take
    more of them, and read on where the others end. decode_contexts: lengths at which cached decoding is timed. ngrams:
    models that count, for the report to show beside the arms.
    """

    base: Run
    arms: dict[str, Any]
    at: str | None = None
    match: Literal["params", "active", "flops", "kv_bytes"] | None = None
    adjust: str | dict[str, str] | None = None
    multiple: int = 8
    budget: Literal["steps", "flops"] = "steps"
    seeds: int = 4
    decode_contexts: tuple[int, ...] = ()
    ngrams: tuple[NGram, ...] = ()

    def __post_init__(self) -> None:
        self.check_seeds()
        if len(self.arms) < 2:
            raise ConfigError("an ablation compares at least 2 arms")
        if self.adjust is not None and self.match is None:
            raise ConfigError(f"adjust={self.adjust} does nothing without match")
        if self.multiple < 1:
            raise ConfigError(f"multiple={self.multiple} must be at least 1")
        if isinstance(self.adjust, dict) and (lost := next((arm for arm in self.adjust if arm not in self.arms), None)):
            raise ConfigError(unknown(lost, self.arms, "adjust: there is no arm"))

    @property
    def baseline(self) -> str:
        return next(iter(self.arms))

    def adjusted(self, arm: str) -> str:
        """The path that matching changes in an arm."""
        usual = "model.block.mixer.head_width" if self.match == "kv_bytes" else "model.block.ff.hidden"
        return self.adjust.get(arm, usual) if isinstance(self.adjust, dict) else self.adjust or usual

    def arms_resolved(self) -> dict[str, tuple[Run, dict[str, Any]]]:
        out: dict[str, tuple[Run, dict[str, Any]]] = {}
        for name, value in self.arms.items():
            point = self._point(name, value)
            run = replace(self.base, point)
            if self.match is not None and out:
                path = self.adjusted(name)
                run, size = matched(run, out[self.baseline][0], self.match, path, self.multiple, arm=name)
                point = {**point, path: size}
            if self.budget == "flops" and out:
                run, steps = at_flops(run, out[self.baseline][0].flops)
                point = {**point, "train.steps": steps}
            out[name] = (run, point)
            for context in self.decode_contexts:
                run.model.check_context(context)
        return out

    def report(self, **tables: Any) -> Report:
        from lm.analysis import ablation_report

        return ablation_report(baseline=self.baseline, **tables)

    def match_note(self) -> str:
        """How the arms were made equal, and what inequality is left."""
        if self.match is None:
            return "The arms are not matched in size." + self._budget_note()
        arms = self.arms_resolved()
        goal = quantity(arms[self.baseline][0], self.match)
        paths = {name: self.adjusted(name) for name in arms if name != self.baseline}
        one = len(set(paths.values())) == 1
        left = []
        for name, path in paths.items():
            run, what = arms[name][0], "" if one else f"{path}="
            left.append(f"{name} {what}{get(run, path)} ({100 * (quantity(run, self.match) / goal - 1):+.2f}%)")
        by = f"{self.match}: {min(paths.values())}" if one else self.match
        matched_by = f"Matched to {self.baseline} by {by} in steps of {self.multiple}: {', '.join(left)}."
        return matched_by + self._budget_note()

    def _budget_note(self) -> str:
        if self.budget == "steps":
            return ""
        runs = {name: run for name, (run, _) in self.arms_resolved().items()}
        goal = runs[self.baseline].flops
        left = [f"{name} {run.train.steps} ({100 * (run.flops / goal - 1):+.2f}%)" for name, run in runs.items()]
        return f" Equal training FLOPs, {goal:.3g}, by steps: {', '.join(left)}."

    def _point(self, name: str, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        if self.at is None:
            raise ConfigError(f"arm {name}: say where it goes with at='model....', or give a dict of paths and values")
        return {self.at: value}


def short(value: Any) -> str:
    """A value as a label: a component by its name and the fields that aren't at their defaults."""
    if not is_config(value):
        return repr(value) if isinstance(value, float) else str(value)
    set_here = [
        f"{field.name}={short(getattr(value, field.name))}"
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != field.default
    ]
    return type(value).__name__ + (f"({', '.join(set_here)})" if set_here else "")
