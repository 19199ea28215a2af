"""Did a change move a law's exponents, its coefficients, or only its floor?"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

from lm.analysis.scaling.fitting import Fit, fit
from lm.analysis.scaling.frontier import same_text
from lm.analysis.scaling.law import Columns, Law, Parameter
from lm.analysis.scaling.runs import RunTable
from lm.analysis.scaling.uncertainty import dispersion
from lm.analysis.tables import TableError

SIDE = "second"  # 1 for runs of the second table
CLEAR = 4.0  # of AICc: a difference that isn't chance of choosing among five
CHANGED = "'"  # E' is the second table's E


class Shared(Law):
    """One law for two tables, of which some parameters are each table's own."""

    def __init__(self, law: Law, own: tuple[str, ...]) -> None:
        self.law, self.own = law, own
        self.name, self.source = law.name, law.source  # type: ignore[misc]
        self.columns, self.target, self.objective = (*law.columns, SIDE), law.target, law.objective
        second = [p for p in law.parameters if p.name in own]
        # the linear ones of two tables aren't one basis: their starts are drawn
        self.parameters = tuple(
            Parameter(p.name + mark, p.low, p.high, p.positive)
            for mark, of in (("", law.parameters), (CHANGED, second))
            for p in of
        )

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        given = vars(p)
        second = {name: given[name + CHANGED if name in self.own else name] for name in self.law.names}
        first = SimpleNamespace(**{name: given[name] for name in self.law.names})
        return np.where(x[SIDE] > 0, self.law.predict(SimpleNamespace(**second), x), self.law.predict(first, x))


@dataclass(frozen=True)
class LawComparison:
    """parameters: first, second, difference and its interval, by name. models: which parameters may differ, objective,
    how much worse than all may differ (drop: twice the log likelihood), p of that by chi-square, and AICc."""

    parameters: pd.DataFrame
    models: pd.DataFrame
    level: float

    @property
    def answer(self) -> str:
        """Which of the models the runs ask for, in words."""
        rows = self.models.to_dict("records")
        best = min(rows, key=lambda row: row["AICc"])
        if not best["differs"] or rows[0]["AICc"] - best["AICc"] < CLEAR or not rows[0]["p"] < 1 - self.level:
            return "The two laws aren't told apart by these runs."
        return f"The runs ask for a difference in {best['differs']}; the rest may be the same."


def compare_laws(first: Fit, second: Fit, *, n: int = 1000, seed: int = 0, level: float = 0.95) -> LawComparison:
    """Compares two fits of one law by one objective: parameter by parameter through bootstraps, and by fitting both
    tables at once with only some parameters free to differ: none, the floor, the coefficients, the exponents, all."""
    alike = (first.law.name, first.law.names, first.law.columns) == (
        second.law.name,
        second.law.names,
        second.law.columns,
    )
    if not alike or vars(first.law) != vars(second.law) or first.how != second.how:
        raise TableError(f"{first.law.name} by {first.how} and {second.law.name} by {second.how} can't be compared")
    same_text(first.runs, second.runs)
    boots = first.bootstrap(n, seed), second.bootstrap(n, seed + 1)
    rows = []
    for name in (*first.params, *first.derived):
        a, b = (boot.draws(name) for boot in boots)
        low, high = np.quantile(b[: len(a)] - a[: len(b)], [(1 - level) / 2, (1 + level) / 2])
        one, two = first.number(name), second.number(name)
        rows.append({"name": name, "first": one, "second": two, "difference": two - one, "low": low, "high": high})
    parameters = pd.DataFrame(rows).assign(differs=lambda t: (t["low"] > 0) | (t["high"] < 0))
    return LawComparison(parameters, _models(first, second), level)


def _models(first: Fit, second: Fit) -> pd.DataFrame:
    law, together = first.law, _joined(first.runs, second.runs, first.law)
    scale = (dispersion(first) * len(first.runs) + dispersion(second) * len(second.runs)) / len(together)
    kinds = {"": (), **_kinds(law), "everything": law.names}
    rows = []
    for words, own in kinds.items():
        made = Shared(law, own)
        start = [{**f.params, **{name + CHANGED: second.params[name] for name in own}} for f in (first, second)]
        found = fit(together, made, first.how.kind, delta=first.how.delta, on=first.how.on, starts=8, begin=start)
        k, count = len(made.parameters), len(together)
        aicc = 2 * found.objective / scale + 2 * k + 2 * k * (k + 1) / max(count - k - 1, 1)
        rows.append({"differs": words, "parameters": k, "objective": found.objective, "AICc": aicc})
    table = pd.DataFrame(rows)
    drop = 2 * (table["objective"] - table["objective"].iloc[-1]) / scale
    free = table["parameters"].iloc[-1] - table["parameters"]
    return table.assign(drop=drop, p=[chi2.sf(max(d, 0), f) if f else np.nan for d, f in zip(drop, free, strict=True)])


def _kinds(law: Law) -> dict[str, tuple[str, ...]]:
    """A law's parameters by what they are: the constant, what is linear besides, and the rest."""
    floor = tuple(name for name in (law.floor,) if name in law.names)
    linear = tuple(p.name for p in law.parameters if p.linear and p.name not in floor)
    rest = tuple(p.name for p in law.parameters if p.name not in (*floor, *linear))
    words = "the exponents" if set(rest) == set(law.exponents) else "the other parameters"
    found = {"the floor": floor, "the coefficients": linear, words: rest}
    return {words: names for words, names in found.items() if names and names != law.names}


def _joined(first: RunTable, second: RunTable, law: Law) -> RunTable:
    keep = [*law.columns, law.target]
    frames = [t.frame.loc[:, keep].assign(**{SIDE: float(i)}) for i, t in enumerate((first, second))]
    return RunTable(pd.concat(frames, ignore_index=True), first.formula)
