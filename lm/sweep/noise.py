"""Runs that differ in seeds alone, to learn how large seed noise is and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm.config import ConfigError, config, replace
from lm.sweep.experiment import Experiment, Planned
from lm.train.run import Run

if TYPE_CHECKING:
    from lm.analysis import Report

ORDER = "data.seed"


@config
class SeedNoise(Experiment):
    """The base over seeds, each with an initialisation and a data order of its own, and a variant over the same ones.

    variant: what it changes, by paths: how much two arms share of their noise is measured with it, and depends on it.
    crossed: so many initialisations of the base meet as many data orders, each in a run; 0 for none.
    """

    base: Run
    variant: dict[str, Any]
    seeds: int = 16
    crossed: int = 6

    def __post_init__(self) -> None:
        self.check_seeds()
        if self.seeds < 2:
            raise ConfigError(f"seeds={self.seeds} must be at least 2: one has no spread")
        if not self.variant:
            raise ConfigError("variant={} changes nothing, so its runs would be the base's own")
        if not 0 <= self.crossed <= self.seeds or self.crossed == 1:
            raise ConfigError(f"crossed={self.crossed} must be 0, or between 2 and seeds={self.seeds}")

    @property
    def axes(self) -> tuple[str, ...]:
        return (ORDER,)

    def arms_resolved(self) -> dict[str, tuple[Run, dict[str, Any]]]:
        return {"base": (self.base, {}), "variant": (replace(self.base, self.variant), self.variant)}

    def planned(self) -> tuple[Planned, ...]:
        """The arms over their seeds, then the base's initialisations with other seeds' data orders."""
        first = self.base.data.seed
        crossed = [
            Planned(
                replace(self.base, {"seed": self.base.seed + seed, ORDER: first + order}),
                f"base, order {order}",
                seed,
                {ORDER: first + order},
            )
            for order in range(self.crossed)
            for seed in range(self.crossed)
            if seed != order  # those are among the base's own
        ]
        return (*super().planned(), *crossed)

    def report(self, **tables: Any) -> Report:
        from lm.analysis.noise import seeds_report

        tables.pop("curves")
        return seeds_report(base="base", variant="variant", order=ORDER, **tables)
