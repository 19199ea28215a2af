"""A law: a function of a run's columns with named parameters. Adding one is one short file in `laws`.

    class Chinchilla(Law):
        name = "chinchilla"
        columns = ("params", "tokens")
        parameters = (positive("E", 0.5, 3), positive("A", 10, 1e5), ...)

        def predict(self, p, x):
            return p.E + p.A * x["params"] ** -p.alpha + p.B * x["tokens"] ** -p.beta

Fits work on coordinates without bounds: the logarithm of what is positive, the parameter itself where it has any sign.
`predict` is called with many parameter vectors at once: `p.E` is [S, 1], a column [n], the result [S, n]; and with
complex numbers, of which the imaginary part is the derivative (Squire and Trapp 1998): so it must be made of functions
that are analytic there (no abs, max or comparisons of parameters).
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from lm.analysis.scaling.objective import Objective
from lm.analysis.tables import TableError
from lm.errors import unknown

Columns = Mapping[str, np.ndarray]
STEP = 1e-30  # of the complex-step derivative: no rounding, however small


@dataclass(frozen=True)
class Parameter:
    """One parameter. low, high: where starts are drawn, evenly in its coordinate. positive: its coordinate is its
    logarithm. linear: the prediction is linear in it (used to find good starts)."""

    name: str
    low: float
    high: float
    positive: bool = True
    linear: bool = False

    def coordinate(self, value: Any) -> Any:
        return np.log(value) if self.positive else value


def positive(name: str, low: float, high: float, linear: bool = False) -> Parameter:
    """A parameter above 0, with the range of its starts."""
    return Parameter(name, low, high, True, linear)


def real(name: str, low: float, high: float) -> Parameter:
    """A parameter of any sign, with the range of its starts."""
    return Parameter(name, low, high, False)


class Law(abc.ABC):
    """A function of columns of a run table. Subclasses are frozen dataclasses where they have settings of their own."""

    name: ClassVar[str]
    columns: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    target: str = "loss"  # the column that is predicted
    objective: Objective = Objective()  # what fits use unless told otherwise
    source: ClassVar[str] = ""  # the paper
    exponents: tuple[str, ...] = ()
    floor: str = "E"  # the parameter that is left at infinite size and training

    @abc.abstractmethod
    def predict(self, p: Any, x: Columns) -> np.ndarray:
        """The target. p: a namespace of parameters, [S, 1] each; x: the columns, [n] each. Gives [S, n]."""

    def derived(self, p: Mapping[str, float]) -> dict[str, float]:
        """Numbers that follow from the parameters and are known by name, such as the exponent a."""
        return {}

    def caution(self, x: Columns) -> list[str]:
        """Sentences about runs that can't tell this law's parameters apart."""
        return []

    # ---- in coordinates -------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parameters)

    def coordinates(self, params: Mapping[str, float]) -> np.ndarray:
        """[p]. Raises TableError for a name that isn't a parameter's, or one that is missing."""
        for name in params:
            if name not in self.names:
                raise TableError(unknown(name, self.names, f"the law {self.name} has no parameter"))
        for name in self.names:
            if name not in params:
                raise TableError(f"the law {self.name} needs a value of '{name}'")
        return np.array([p.coordinate(params[p.name]) for p in self.parameters], float)

    def values(self, theta: np.ndarray) -> dict[str, float]:
        """The parameters of one vector of coordinates."""
        p = self._named(theta[None])
        return {name: float(getattr(p, name)[0, 0]) for name in self.names}

    def at(self, theta: np.ndarray, x: Columns) -> np.ndarray:
        """Predictions [S, n] of coordinates [S, p]."""
        return self.predict(self._named(theta), x)

    def slopes(self, theta: np.ndarray, x: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Predictions [S, n] and their derivatives by the coordinates [S, p, n]."""
        columns = []
        for i in range(len(self.parameters)):
            moved = theta.astype(complex)
            moved[:, i] += STEP * 1j
            columns.append(np.imag(np.broadcast_to(self.at(moved, x), (len(theta), size(x)))) / STEP)
        return self.at(theta, x), np.stack(columns, axis=1)

    def _named(self, theta: np.ndarray) -> SimpleNamespace:
        given = {
            p.name: (np.exp(theta[:, i]) if p.positive else theta[:, i])[:, None] for i, p in enumerate(self.parameters)
        }
        return SimpleNamespace(**given)


def size(x: Columns) -> int:
    return len(next(iter(x.values())))
