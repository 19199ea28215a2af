"""What emerges, over training or over size: several metrics of the same checkpoints, and what was expected of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from lm.config import ConfigError, config, replace, unknown
from lm.sweep.claims import Claim
from lm.sweep.experiment import Experiment
from lm.train.parametrization import at_width
from lm.train.run import Run

if TYPE_CHECKING:
    from lm.analysis import Report

Over = Literal["step", "tokens", "flops", "params"]


@config
class Panel:
    """One panel of the figure. metrics: names or patterns ("answers.exact", "kinds.accuracy_*"), as the runs' rows call
    them: split and column. golds: metrics that theory gives, drawn as dashed lines; levels: named constants, likewise.
    log: a logarithmic y axis. series: those that are shown, as where a metric of one name means something else in
    others; (): all."""

    title: str
    metrics: tuple[str, ...]
    golds: tuple[str, ...] = ()
    levels: dict[str, float] | None = None
    log: bool = False
    series: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ConfigError(f"panel '{self.title}' shows no metric")


@config
class Verdict:
    """The question whether a jump is real. hard: a metric of whole answers, such as exact match; soft: one of the same
    answers that gives credit for part of it, such as their log-probability."""

    series: str
    hard: str
    soft: str


@config
class Emergence(Experiment):
    """The base in every arm, at every size, over seeds, with every metric that its measures record.

    arms: name -> what it changes, {} for nothing. sizes: name -> what it changes; none: the base's own. over: what the
    curves are drawn over: "step", "tokens" or "flops" of training (each size is then a series of its own), or with
    sizes "params", where the ends of the runs make the curve of an arm. profile: the measure whose lists are drawn by
    index as they are at the end, such as "estimates".
    """

    base: Run
    arms: dict[str, dict[str, Any]]
    panels: tuple[Panel, ...]
    claims: tuple[Claim, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    sizes: dict[str, dict[str, Any]] | None = None
    over: Over = "step"
    profile: str | None = None
    seeds: int = 3

    def __post_init__(self) -> None:
        self.check_seeds()
        if not self.arms or not self.panels:
            raise ConfigError("an emergence experiment has at least one arm and one panel to show")
        if self.over == "params" and len(self.sizes or {}) < 2:
            raise ConfigError("over='params' takes at least two sizes")
        for panel in self.panels:
            known = panel.series and (self.arms if self.over == "params" else self.arms_resolved())
            if lost := next((name for name in panel.series if name not in known), None):
                raise ConfigError(unknown(lost, known, f"panel '{panel.title}': there is no series"))
        if self.profile is not None and self.profile not in {m.name for m in self.base.record.measures}:
            raise ConfigError(f"profile='{self.profile}' is no measure of the base: add it to base.record.measures")

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(p for point in (*self.arms.values(), *(self.sizes or {}).values()) for p in point))

    def arms_resolved(self) -> dict[str, tuple[Run, dict[str, Any]]]:
        made = {}
        for size, bigger in (self.sizes or {"": {}}).items():
            for arm, changes in self.arms.items():
                # an arm may change a part of what a size sets, but not put another in its place
                if clash := [path for path in changes if any(f"{b}.".startswith(f"{path}.") for b in bigger)]:
                    raise ConfigError(f"arm '{arm}' and size '{size}' both set {', '.join(clash)}")
                point = {**bigger, **changes}
                made[_label(arm, size)] = (replace(self.base, point), point)
        return made

    def places(self) -> dict[str, tuple[str, float | None]]:
        """The series, and over sizes the x, of each run's arm."""
        runs = self.arms_resolved()
        if self.over != "params":
            return {name: (name, None) for name in runs}
        found: dict[str, tuple[str, float | None]] = {}
        for size in self.sizes or {"": {}}:
            for arm in self.arms:
                run, _ = runs[_label(arm, size)]
                found[_label(arm, size)] = (arm, float(run.model.cost(run.data.length).params))
        return found

    def report(self, *, runs: Any, curves: Any, details: Any, **tables: Any) -> Report:
        from lm.analysis.emergence.measured import measured
        from lm.analysis.emergence.report import emergence_report

        found = measured(runs, curves, "size" if self.over == "params" else self.over, self.places())
        return emergence_report(
            measured=found,
            runs=runs,
            over="parameters" if self.over == "params" else self.over,
            panels=self.panels,
            judged=[claim.judged(found) for claim in self.claims],
            asked=[(v.series, v.hard, v.soft) for v in self.verdicts],
            profile=None if self.profile is None else details.loc[details["split"] == self.profile],
            **tables,
        )


def at_widths(base: Run, widths: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Sizes of an experiment: the base's model at each width, all its inner widths following; heads become wider."""
    return {f"width {width}": {"model": at_width(base, width, "wider").model} for width in widths}


def _label(arm: str, size: str) -> str:
    return f"{arm}, {size}" if size else arm
