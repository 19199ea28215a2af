"""Power laws that bend: Caballero et al. 2023, "Broken Neural Scaling Laws", eq. 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law, Parameter, positive, real
from lm.analysis.scaling.objective import Objective
from lm.analysis.tables import TableError


@dataclass(frozen=True)
class BNSL(Law):
    """y = a + b x^-c_0 prod_i (1 + (x / d_i)^(1 / f_i))^(-c_i f_i).

    x, target: columns; the target falls towards a (give 1 - accuracy, not accuracy). At the i-th break, x = d_i, the
    slope on log axes changes by c_i, the sooner the smaller f_i. The breaks are in no order.
    span: where breaks are looked for at the start.
    """

    name = "bnsl"
    source = "Caballero et al. 2023, eq. 1"
    floor = "a"
    breaks: int = 1
    x: str = "flops"
    target: str = "loss"
    span: tuple[float, float] = (1e14, 1e25)
    objective = Objective("squared")

    def __post_init__(self) -> None:
        if self.breaks < 0:
            raise TableError(f"breaks={self.breaks} must be 0 (a power law) or more")
        if not 0 < self.span[0] < self.span[1]:
            raise TableError(f"span={self.span} isn't a range of positive {self.x}")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.x,)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        found = [positive("a", 1e-2, 3, linear=True), positive("b", 1e-2, 1e4, linear=True), real("c_0", -0.1, 0.6)]
        for i in range(1, self.breaks + 1):
            found += [real(f"c_{i}", -0.6, 0.6), positive(f"d_{i}", *self.span), positive(f"f_{i}", 0.05, 1)]
        return tuple(found)

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        log_x = np.log(x[self.x])
        power = -p.c_0 * log_x
        for i in range(1, self.breaks + 1):
            c, d, f = (getattr(p, f"{letter}_{i}") for letter in "cdf")
            power = power - c * f * softplus((log_x - np.log(d)) / f)
        return p.a + p.b * np.exp(power)

    def slopes(self, theta: np.ndarray, x: Columns) -> tuple[np.ndarray, np.ndarray]:
        """As the general ones, without complex numbers."""
        log_x = np.log(x[self.x])
        slopes = np.empty((*theta.shape, len(log_x)))
        power = -theta[:, 2:3] * log_x
        for i in range(self.breaks):
            c, log_d, f = theta[:, 3 + 3 * i, None], theta[:, 4 + 3 * i, None], np.exp(theta[:, 5 + 3 * i, None])
            z = (log_x - log_d) / f
            soft, share = softplus(z), (1 + np.tanh(z / 2)) / 2  # the share of the change of slope that is past
            power = power - c * f * soft
            slopes[:, 3 + 3 * i] = -f * soft
            slopes[:, 4 + 3 * i] = c * share
            slopes[:, 5 + 3 * i] = -c * f * (soft - z * share)
        rest, floor = np.exp(theta[:, 1:2] + power), np.exp(theta[:, :1])
        slopes[:, 3:] *= rest[:, None]
        slopes[:, 0], slopes[:, 1], slopes[:, 2] = floor, rest, -log_x * rest
        return floor + rest, slopes

    def caution(self, x: Columns) -> list[str]:
        wide = np.ptp(np.log10(x[self.x]))
        if self.breaks and wide < 1:
            return [f"{self.x} spans a factor of only {10**wide:.2g}: a break can't be told from noise."]
        return []


def softplus(z: np.ndarray) -> np.ndarray:
    """log(1 + e^z) without overflow, for complex numbers too."""
    z = np.asarray(z)
    above = np.real(z) > 0  # by the real part: the derivative stays that of the branch taken
    return np.where(above, z, 0) + np.log1p(np.exp(np.where(above, -z, z)))
