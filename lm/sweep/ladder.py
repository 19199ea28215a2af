"""A ladder of sizes and lengths, from which a scaling law is fitted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm.config import ConfigError, config, replace
from lm.sweep.experiment import Experiment
from lm.train.parametrization import at_width
from lm.train.run import Run

if TYPE_CHECKING:
    from lm.analysis import Report

WIDTH, STEPS, WARMUP = "model.width", "train.steps", "train.schedule.warmup"
RATE = "train.optimizer.learning_rate"


@config
class Rung:
    """One size, trained for one length. The learning rate is the base's times `rate`."""

    width: int
    steps: int
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.width < 1 or self.steps < 1 or self.rate <= 0:
            raise ConfigError(f"{self} isn't a size, a number of steps and a factor of the learning rate")


@config
class Ladder(Experiment):
    """The base at every rung: `widened` in its own parametrisation, its warm-up as long a share of the steps as the
    base's. The report fits a scaling law to the ends of the runs; of rungs that differ only in their learning rate the
    best counts.

    law: the law's name (see `lm.analysis.scaling`). floor: the least loss that any model can reach, in nats a token,
    where the data's source is known: the report says whether the law finds it. foretell: fit once without the largest
    budget, and say what that law says of it.
    """

    base: Run
    rungs: tuple[Rung, ...]
    law: str = "chinchilla"
    floor: float | None = None
    foretell: bool = True
    seeds: int = 1

    def __post_init__(self) -> None:
        self.check_seeds()
        if len({(r.width, r.steps) for r in self.rungs}) < 2:
            raise ConfigError("a ladder has at least two different rungs; `rungs` makes them of widths and budgets")

    @property
    def axes(self) -> tuple[str, ...]:
        return (WIDTH, STEPS) if len({r.rate for r in self.rungs}) == 1 else (WIDTH, STEPS, RATE)

    def arms_resolved(self) -> dict[str, tuple[Run, dict[str, Any]]]:
        arms: dict[str, tuple[Run, dict[str, Any]]] = {}
        for rung in self.rungs:
            name = f"width {rung.width}, {rung.steps} steps" + (f", rate x {rung.rate:g}" if rung.rate != 1 else "")
            if name in arms:
                raise ConfigError(f"two rungs are equal: {name}; seeds= repeats them all")
            run = _at(self.base, rung)
            arms[name] = (run, {WIDTH: rung.width, STEPS: rung.steps, RATE: run.train.optimizer.learning_rate})
        return arms

    def report(self, **tables: Any) -> Report:
        from lm.analysis.scaling.ladder import ladder_report

        tables.pop("curves")
        return ladder_report(law=self.law, floor=self.floor, foretell=self.foretell, **tables)


def rungs(
    base: Run, widths: Sequence[int], budgets: Sequence[float], ratio: tuple[float, float] = (1, 1000)
) -> tuple[Rung, ...]:
    """Every width at every budget of 6 x parameters x tokens FLOPs, but for those with fewer or more tokens a
    parameter than `ratio`: so each budget has its own middle sizes, and no run is spent far from any optimum."""
    found = []
    for budget, width in itertools.product(sorted(budgets), sorted(widths)):
        run = at_width(base, width)
        params = run.model.cost(run.data.length).params
        steps = round(budget / (6 * params * run.data.batch * run.data.length))
        if steps >= 1 and ratio[0] <= steps * run.data.batch * run.data.length / params <= ratio[1]:
            found.append(Rung(width=width, steps=steps))
    return tuple(found)


def planned_ladder(
    base: Run,
    budget: float,
    believed: Mapping[str, float],
    *,
    widths: Sequence[int],
    law: str = "chinchilla",
    target: Any = "a",
    noise: float = 0.005,
    largest: float | None = None,
    lengths: int = 16,
    rates: Sequence[float] = (1.0,),
) -> Ladder:
    """The ladder for a budget of FLOPs that narrows the interval of `target` most, if the law is about what is
    `believed` (a guess or an earlier fit's parameters): see `lm.analysis.scaling.design`. `lm.sweep.flops_of` makes a
    budget of hours of a device.

    widths: the sizes to choose from. lengths: how many lengths of each are considered, from 1 token a parameter to
    what the `largest` budget of a run pays for (default: a quarter of all). noise: the deviation of log(loss) from run
    to run. rates: factors of the learning rate that each rung is tried with, out of the same budget; a base in muP
    needs only the one. A rung chosen more than once becomes seeds of the whole ladder where that fits, else it counts
    once.
    """
    import numpy as np
    import pandas as pd

    from lm.analysis.scaling import design

    a_step, share = base.data.batch * base.data.length, budget / len(rates)
    rows = []
    for width in widths:
        params = at_width(base, width).model.cost(base.data.length).params
        most = (largest or share / 4) / (6 * params)
        for tokens in np.geomspace(min(params, most / 2), most, lengths):
            steps = max(1, round(tokens / a_step))
            row = {"width": width, "steps": steps, "params": float(params), "tokens": float(steps * a_step)}
            rows.append(row | {"flops": 6 * row["params"] * row["tokens"]})
    candidates = pd.DataFrame(rows).drop_duplicates(["width", "steps"]).reset_index(drop=True)
    chosen = design(law, believed, candidates, share, target=target, noise=noise).runs
    made = tuple(
        Rung(width=int(r["width"]), steps=int(r["steps"]), rate=rate)
        for r, rate in itertools.product(chosen.to_dict("records"), rates)
    )
    return Ladder(base=base, rungs=made, law=law, foretell=False, seeds=max(1, min(chosen["count"].tolist())))


def _at(base: Run, rung: Rung) -> Run:
    run = at_width(base, rung.width)
    changes: dict[str, Any] = {STEPS: rung.steps}
    warmup = getattr(run.train.schedule, "warmup", None)
    if warmup is not None:
        changes[WARMUP] = min(rung.steps - 1, round(warmup * rung.steps / run.train.steps))
    if rung.rate != 1:
        changes[RATE] = run.train.optimizer.learning_rate * rung.rate
    return replace(run, changes)
