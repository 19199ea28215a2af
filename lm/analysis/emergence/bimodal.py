"""Do seeds fall into two groups? Near a jump some runs have made it and others not, and their mean is of neither."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.analysis.tables import TableError

ENOUGH = 6  # values: of fewer the test hardly ever finds two modes, however far apart they are
DRAWS = 500
LEVEL = 0.05
PLACES = 256  # over the values and three bandwidths to either side, where modes are counted
MOST = 4  # modes that are looked for


@dataclass(frozen=True)
class Modes:
    """p: of Silverman's test that there is one mode, NaN where values are too few for it (`enough` False). count: the
    least number of modes that the test at 5% doesn't reject, 1 where it wasn't made. bandwidth: the critical one, below
    which a density of normal kernels has more than one mode. gap: the largest gap between neighbours, as a share of the
    range."""

    p: float
    count: int
    bandwidth: float
    gap: float
    enough: bool


def modes(values: Any, seed: int = 0) -> Modes:
    """Is a sample unimodal? By the critical bandwidth and a smoothed bootstrap (Silverman 1981), whose p values are too
    large rather than too small. Raises TableError for values that aren't numbers."""
    x = np.sort(np.asarray(values, float))
    if x.ndim != 1 or len(x) == 0 or not np.isfinite(x).all():
        raise TableError("modes are of a list of numbers, one a seed; leave missing ones out")
    width = float(np.ptp(x))
    gap = float(np.max(np.diff(x))) / width if width > 0 else 0.0
    if len(x) < ENOUGH:
        return Modes(math.nan, 1, math.nan, gap, False)
    if width == 0:
        return Modes(1.0, 1, 0.0, gap, True)
    p, bandwidth = _test(x, 1, seed)
    count = 1
    while count < MOST and (p if count == 1 else _test(x, count, seed)[0]) < LEVEL:
        count += 1
    return Modes(p, count, bandwidth, gap, True)


def critical_bandwidth(x: np.ndarray, count: int = 1) -> float:
    """The least bandwidth of normal kernels with which the density of x has at most `count` modes. It is found by
    bisection: the number of modes never rises with the bandwidth (Silverman 1981)."""
    high = float(np.ptp(x))  # normal kernels this wide have a single mode
    low = high / 1000
    for _ in range(30):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if mode_counts(x[None], middle)[0] <= count else (middle, high)
    return high


def mode_counts(samples: np.ndarray, bandwidth: float) -> np.ndarray:
    """How many maxima the density of each sample [B, n] has."""
    reach = 3 * bandwidth
    places = np.linspace(samples.min(1) - reach, samples.max(1) + reach, PLACES, axis=1)
    density = np.exp(-(((places[:, :, None] - samples[:, None]) / bandwidth) ** 2) / 2).sum(-1)
    rising = np.diff(density) > 0
    return np.sum(rising[:, :-1] & ~rising[:, 1:], axis=1)


def _test(x: np.ndarray, count: int, seed: int) -> tuple[float, float]:
    """The p value of at most `count` modes, and the critical bandwidth: the share of samples from the density with that
    bandwidth, scaled to the variance of x, that have more modes with it."""
    rng, h = np.random.default_rng(seed), critical_bandwidth(x, count)
    drawn = rng.choice(x, (DRAWS, len(x))) + h * rng.normal(size=(DRAWS, len(x)))
    drawn = x.mean() + (drawn - x.mean()) / math.sqrt(1 + h**2 / x.var())
    return float(np.mean(mode_counts(drawn, h) > count)), h
