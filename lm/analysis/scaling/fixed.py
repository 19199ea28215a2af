"""A law of which some parameters are known."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law
from lm.analysis.tables import TableError
from lm.errors import unknown


class Fixed(Law):
    """`law` with the parameters `given`; the others are left to be fitted."""

    def __init__(self, law: Law, given: Mapping[str, float]) -> None:
        for name in given:
            if name not in law.names:
                raise TableError(unknown(name, law.names, f"the law {law.name} has no parameter"))
        for parameter in law.parameters:
            value = given.get(parameter.name, 1.0)
            if not np.isfinite(value) or (parameter.positive and value <= 0):
                raise TableError(
                    f"{parameter.name}={value} isn't possible: it is a {'positive ' * parameter.positive}number"
                )
        self.law, self.given = law, dict(given)
        self.floor, self.exponents = law.floor, law.exponents
        self.__doc__ = law.__doc__
        self.name, self.source = law.name, law.source  # type: ignore[misc]
        self.columns, self.target, self.objective = law.columns, law.target, law.objective
        self.parameters = tuple(p for p in law.parameters if p.name not in given)

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        given = {name: np.array([[value]]) for name, value in self.given.items()}
        return self.law.predict(SimpleNamespace(**vars(p), **given), x)

    def slopes(self, theta: np.ndarray, x: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Those of the whole law, of the parameters that are left."""
        free = [i for i, p in enumerate(self.law.parameters) if p.name not in self.given]
        whole = np.empty((len(theta), len(self.law.parameters)))
        whole[:, free] = theta
        for i, p in enumerate(self.law.parameters):
            if p.name in self.given:
                whole[:, i] = p.coordinate(self.given[p.name])
        found, slopes = self.law.slopes(whole, x)
        return found, slopes[:, free]

    def derived(self, p: Mapping[str, float]) -> dict[str, float]:
        """What was given, and what follows from it and the rest."""
        return {**self.given, **self.law.derived({**p, **self.given})}

    def caution(self, x: Columns) -> list[str]:
        return self.law.caution(x)
