"""Does a curve break? Smooth shapes and breaking ones on the same points, each paying for its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from lm.analysis.emergence.shapes import BREAKING, LEAST, SMOOTH, Axis, Fitted, Piecewise, fit_shape
from lm.analysis.tables import TableError

RESOLUTION = 1e-6  # of the squared range of y: a mean squared residual below it is rounding, not a better fit
MOST_OF_IT = 0.8  # of the change: what a logistic does between 10% and 90% of its rise
ROUNDING = 1e-12  # of the largest y
HALF = 0.5  # of the observed stretch: a change that takes longer has no place, it is the curve
KINK = 3.0  # times the slope: as much as the chords differ of the two halves of a parabola that begins at its vertex
BEYOND = 3.0  # residual deviations: what a segment must change by, for its slope to be one
FINELY = np.linspace(0, 1, 801)  # places between which a curve's change is added up


@dataclass(frozen=True)
class Evidence:
    """All shapes on the same points (x, y).

    table: a row a shape, with parameters, rss, bic (NaN where there are too few points), deviation (of the residuals),
    span (the share of the observed stretch that most of its change takes) and breaks: whether it breaks within the
    stretch. smooth, broken: the best of each kind; broken is None where none breaks. margin: what BIC has against the
    best smooth one and for the best broken one (see `gain`), positive for a break; -inf where there is none. change:
    likewise against a flat line and for the best other shape.
    """

    x: np.ndarray
    y: np.ndarray
    fits: Mapping[str, Fitted]
    table: pd.DataFrame
    smooth: Fitted
    broken: Fitted | None
    margin: float
    change: float


def compare_shapes(x: Any, y: Any, axis: Axis = Axis()) -> Evidence:  # noqa: B008
    """Fits every shape to the points by least squares and compares them by BIC (Schwarz 1978).

    y: one value at each x, the mean over seeds where there are several. A shape of the breaking family that is as wide
    as the curve, or whose slope hardly changes, counts as smooth (see `breaks`).
    Raises TableError for fewer than 6 different x.
    """
    places, values = np.asarray(x, float), np.asarray(y, float)
    different = len(np.unique(places))
    if different < LEAST:
        raise TableError(f"{different} different x are too few to tell a break from a smooth curve; {LEAST} are needed")
    fits: dict[str, Fitted] = {}
    rows = []
    for shape in (*SMOOTH, *BREAKING):
        row: dict[str, Any] = {"shape": shape.name}
        try:
            fits[shape.name] = made = fit_shape(shape, places, values, axis=axis)
        except TableError:  # more parameters than points
            rows.append(row | {"bic": math.nan, "breaks": False})
            continue
        row |= {"parameters": made.parameters, "rss": made.rss, "bic": bic(made, values)}
        row |= {"deviation": deviation(made), "span": width(made)}
        rows.append(row | {"breaks": breaks(made)})
    table = pd.DataFrame(rows)
    judged = dict(zip(table["shape"], table["breaks"], strict=True))
    smooth = _best([f for name, f in fits.items() if not judged[name]], values)
    broken = max((f for name, f in fits.items() if judged[name]), key=lambda f: gain(f, smooth, values), default=None)
    margin = gain(broken, smooth, values) if broken else -math.inf
    change = max(gain(f, fits["flat"], values) for name, f in fits.items() if name != "flat")
    return Evidence(places, values, fits, table, smooth, broken, margin, change)


def _best(fits: Sequence[Fitted], y: np.ndarray) -> Fitted:
    """From few parameters to many, as long as there is something to gain."""
    first, *rest = sorted(fits, key=lambda f: f.parameters)
    for richer in rest:
        first = richer if gain(richer, first, y) > 0 else first
    return first


def bic(fitted: Fitted, y: np.ndarray) -> float:
    """n log(rss / n) + k log n: for normal residuals of an unknown deviation, which counts as a parameter."""
    n = fitted.points
    return n * math.log(_mean_square(fitted, y)) + (fitted.parameters + 1) * math.log(n)


def gain(richer: Fitted, plainer: Fitted, y: np.ndarray) -> float:
    """What BIC has against the plainer shape, positive where the richer one is better.

    The difference of the two BIC, with the richer one's degrees of freedom in place of n before log rss: the logarithm
    of the ratio is by about n over these too large where points are few, which would let rich shapes win by chance.
    """
    n, left = richer.points, richer.points - richer.parameters
    ratio = math.log(_mean_square(plainer, y) / _mean_square(richer, y))
    return left * ratio - (richer.parameters - plainer.parameters) * math.log(n)


def _mean_square(fitted: Fitted, y: np.ndarray) -> float:
    """Of the residuals; no less than 1e-6 of the squared range of y, nor than rounding leaves of equal y: below, fits
    only compete in following digits."""
    rounding = (ROUNDING * float(np.max(np.abs(y)))) ** 2
    return max(fitted.rss / fitted.points, RESOLUTION * float(np.ptp(y)) ** 2, rounding, 1e-300)


def deviation(fitted: Fitted) -> float:
    """Of the residuals, for what the parameters took."""
    return math.sqrt(fitted.rss / (fitted.points - fitted.parameters))


def breaks(fitted: Fitted) -> bool:
    """True for a fit that changes at a place of the observed stretch rather than all along it.

    Of a logistic or a BNSL, most of the change takes less than half of the stretch; of a piecewise line, the slope
    changes by more than a factor of 3 or changes its sign, and the steeper segment changes y by more than noise does.
    """
    if not fitted.shape.breaks:
        return False
    if not isinstance(fitted.shape, Piecewise):
        return width(fitted) < HALF
    at = float(fitted.theta[0])
    before, after = fitted.b[1], fitted.b[1] + fitted.b[2]
    gentle, steep = sorted((before, after), key=abs)
    change = abs(steep) * (at if steep == before else 1 - at)
    return bool((gentle * steep <= 0 or abs(steep) > KINK * abs(gentle)) and change > BEYOND * deviation(fitted))


def width(fitted: Fitted) -> float:
    """The share of the observed stretch in which 80% of a fit's change happens, at the least."""
    start, _, end = transitions((fitted.shape.basis(fitted.theta, FINELY) @ fitted.b)[None])[0]
    return float(end - start)


def transitions(curves: np.ndarray) -> np.ndarray:
    """(start, middle, end) in z of curves [B, 801] over z = 0..1.

    80% of a curve's total variation lies between start and end, as close together as it goes, and half of that before
    the middle. Of a logistic that is seen whole these are its points of 10%, 50% and 90%.
    """
    found = np.empty((len(curves), 3))
    for i, steps in enumerate(np.abs(np.diff(curves))):
        total = float(steps.sum())
        share = np.concatenate([[0.0], np.cumsum(steps / total if total else np.full(len(steps), 1 / len(steps)))])
        before = share[share <= 1 - MOST_OF_IT]
        # where nothing changes for a while, a stretch begins at the end of the while and ends at its beginning
        begin, end = _reached(share, before, "right"), _reached(share, before + MOST_OF_IT, "left")
        best = int(np.argmin(end - begin))
        middle = _reached(share, before[best : best + 1] + MOST_OF_IT / 2, "left")[0]
        found[i] = begin[best], middle, end[best]
    return found


def _reached(share: np.ndarray, levels: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """Where a rising share reaches levels: of places that have the same, the first ("left") or the last."""
    after = np.clip(np.searchsorted(share, levels, side), 1, len(share) - 1)
    low, high = share[after - 1], share[after]
    part = np.clip((levels - low) / np.where(high > low, high - low, 1), 0, 1)
    return FINELY[after - 1] + part * (FINELY[after] - FINELY[after - 1])
