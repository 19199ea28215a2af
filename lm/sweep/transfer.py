"""The learning rate over the width, under the standard and the maximal update parametrisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm.config import ConfigError, config, replace
from lm.models.widen import Heads
from lm.sweep.experiment import Experiment
from lm.train.parametrization import MuP, Standard, at_width, mup
from lm.train.run import Run

if TYPE_CHECKING:
    from lm.analysis import Report

RULE, WIDTH, RATE = "train.parametrization", "model.width", "train.optimizer.learning_rate"


@config
class LRTransfer(Experiment):
    """The base at every width and learning rate, once as it is and once in MuP from the narrowest width.

    base: of any width, in the standard parametrisation; all its inner widths follow. rates: a grid with one factor.
    heads: whether heads become more with the width, or wider.
    """

    base: Run
    widths: tuple[int, ...]
    rates: tuple[float, ...]
    heads: Heads = "more"
    seeds: int = 1

    def __post_init__(self) -> None:
        self.check_seeds()
        if len(set(self.widths)) < 2 or len(set(self.rates)) < 3:
            raise ConfigError("a transfer needs at least 2 widths, and 3 rates to see the best between two others")
        if not isinstance(self.base.train.parametrization, Standard):
            raise ConfigError("base.train.parametrization must be Standard(): this experiment makes the other one")

    @property
    def axes(self) -> tuple[str, ...]:
        return RULE, WIDTH, RATE

    def arms_resolved(self) -> dict[str, tuple[Run, dict[str, Any]]]:
        arms: dict[str, tuple[Run, dict[str, Any]]] = {}
        narrowest = min(self.widths)
        for name, rule in {"standard": Standard(), "muP": MuP(base_width=narrowest, heads=self.heads)}.items():
            for width in sorted(set(self.widths)):
                run = at_width(self.base, width, self.heads)
                run = run if name == "standard" else mup(run, narrowest, self.heads)
                for rate in sorted(set(self.rates)):
                    point = {RULE: rule, WIDTH: width, RATE: rate}
                    arms[f"{name}, width {width}, rate {rate:g}"] = (replace(run, {RATE: rate}), point)
        return arms

    def report(self, **tables: Any) -> Report:
        from lm.analysis.transfer import transfer_report

        tables.pop("curves")
        return transfer_report(rule=RULE, width=WIDTH, rate=RATE, **tables)
