"""What counts of right answers can tell, and BIG-bench's two numbers for a curve over models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import ndtri  # scipy.stats takes seconds to import

from lm.analysis.tables import TableError


def wilson(successes: Any, n: Any, level: float = 0.95) -> tuple[Any, Any]:
    """The interval of a share of which `successes` in `n` were seen, numbers or arrays (Wilson 1927).

    It is the set of shares that a score test at 1 - level doesn't reject, and lies within [0, 1] whatever was seen.
    Raises TableError for counts that aren't possible.
    """
    _check_level(level)
    k, count = np.asarray(successes, float), np.asarray(n, float)
    if np.any(count < 1) or np.any(k < 0) or np.any(k > count) or not np.isfinite(k / count).all():
        raise TableError(f"{successes} successes in {n} aren't counts: successes lie between 0 and n, n is 1 or more")
    z2 = float(ndtri((1 + level) / 2)) ** 2
    centre = (k + z2 / 2) / (count + z2)
    half = np.sqrt(z2 * (k * (count - k) / count + z2 / 4)) / (count + z2)
    # the ends at no success and at nothing else are exact, and rounding mustn't move them
    low, high = np.where(k == 0, 0.0, centre - half), np.where(k == count, 1.0, centre + half)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def detectable(n: int, chance: float = 0.0, level: float = 0.95) -> float:
    """The least accuracy that `n` examples can tell from `chance`.

    Above a chance level: the least share k / n whose Wilson interval lies above it; infinite where even n right answers
    of n don't. Chance 0 is left by a single right answer, so there it is the upper end for none of n: a model below it
    may well give no right answer at all, which is what a model gives that can't do the task.
    """
    if n < 1 or not 0 <= chance < 1:
        raise TableError(f"n={n} and chance={chance}: examples are 1 or more, and chance is at least 0 and below 1")
    if chance == 0:
        return wilson(0, n, level)[1]
    shares = np.arange(n + 1)
    above = shares[wilson(shares, n, level)[0] > chance]
    return float(above[0]) / n if len(above) else math.inf


def linearity(values: Any) -> float:
    """How steadily a score moves over models ordered by size: its signed range over the root mean square of its steps
    (BIG-bench, Srivastava et al. 2022). The number of steps for a straight line; 0 where nothing changes."""
    y = _scores(values)
    return _signed_range(y) / math.sqrt(float(np.mean(np.diff(y) ** 2))) if np.ptp(y) else 0.0


def breakthrough(values: Any) -> float:
    """How suddenly a score moves over models ordered by size: as `linearity`, over the root median square of its steps,
    which a single large step doesn't change. Infinite where more than half of the steps are none."""
    y = _scores(values)
    median, signed = math.sqrt(float(np.median(np.diff(y) ** 2))), _signed_range(y)
    return signed / median if median else math.copysign(math.inf, signed) if signed else 0.0


def _scores(values: Any) -> np.ndarray:
    y = np.asarray(values, float)
    if y.ndim != 1 or len(y) < 2 or not np.isfinite(y).all():
        raise TableError(f"a curve over models takes at least two scores, all of them numbers; got {y.tolist()}")
    return y


def _signed_range(y: np.ndarray) -> float:
    """Positive where the largest score comes after the smallest."""
    return float(np.sign(np.argmax(y) - np.argmin(y)) * np.ptp(y))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise TableError(f"level={level} must lie between 0 and 1")
