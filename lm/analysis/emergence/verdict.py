"""Is it a jump, and whose: the model's or the metric's? Verdicts in numbers and in words.

A jump of a hard metric, such as exact match, is the metric's where a soft metric of the same answers, such as their
log-probability, goes on smoothly (Schaeffer et al. 2023), and the model's where both break at the same place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lm.analysis.emergence.bimodal import Modes, modes
from lm.analysis.emergence.evidence import LEAST, Evidence, compare_shapes, transition, transitions
from lm.analysis.emergence.shapes import Axis, Fitted, Kind, refit
from lm.analysis.paired import mean_interval
from lm.analysis.tables import TableError
from lm.analysis.text import either, si

Shape = Literal["jump", "bend", "smooth", "none", "unknown"]

STRONG = 6.0  # difference of BIC from which evidence is called strong (Kass and Raftery 1995)
STEEP = 0.25  # of the observed stretch: a break that most of the change passes in less of it is a jump
SHORT = 0.5  # decades: one that takes less is a jump, however short the observed stretch is
SAME = math.log10(math.sqrt(10))  # decades: breaks as near as this are at one place
DRAWS = 500  # of the residual bootstrap
ENOUGH_SEEDS = 3  # from here on, seeds themselves say how far a break is known


@dataclass(frozen=True, kw_only=True)
class CurveVerdict:
    """One metric's curve.

    kind: "jump" breaks and most of its change takes little of the stretch; "bend" breaks, gradually; "smooth" changes
    without a break; "none" doesn't change beyond noise; "unknown": too few points. break_at: the middle of the change,
    from start to end (80% of it), in x; low, high: the 95% interval of break_at. width: decades from start to end
    (units of x on a linear axis). margin: the evidence for a break (`Evidence`). modes: of the seeds' values there.
    """

    kind: Shape
    break_at: float = math.nan
    low: float = math.nan
    high: float = math.nan
    start: float = math.nan
    end: float = math.nan
    width: float = math.nan
    margin: float = -math.inf
    modes: Modes | None = None
    evidence: Evidence | None = None

    @property
    def breaks(self) -> bool:
        return self.kind in ("jump", "bend")

    @property
    def sentence(self) -> str:
        """The verdict in words, without the metric's name."""
        return self.words("x")

    def words(self, x_name: str) -> str:
        if self.kind == "unknown":
            return f"not known: fewer than {LEAST} places were measured"
        if self.kind == "none":
            return "doesn't change beyond noise"
        if self.kind == "smooth":
            return "is smooth"
        text = f"{self.kind}s between {si(self.start, 2)} and {si(self.end, 2)} {x_name}"
        if self.modes is not None and self.modes.enough and self.modes.count > 1:
            text += f", where seeds fall into {self.modes.count} groups"
        return text


def curve_verdict(x: Any, values: Any, kind: Kind = "log", seed: int = 0) -> CurveVerdict:
    """The verdict on a curve: values [seeds, n] or [n] at x [n], in the order of progress (x may fall, as a loss does).

    Shapes are compared on the mean over seeds. The interval of the break is Student's over the seeds' own breaks where
    there are 3 and more, else a residual bootstrap's. kind: of the axis. seed: of the bootstrap.
    """
    places, rows = np.asarray(x, float), np.atleast_2d(np.asarray(values, float))
    if len(np.unique(places)) < LEAST or not rows.size:
        return CurveVerdict(kind="unknown")
    if rows.shape[1] != len(places) or not np.isfinite(rows).all():
        raise TableError(f"a curve needs a number for every seed and x; got values {rows.shape} at {len(places)} x")
    axis = Axis.of(places, kind)
    mean = rows.mean(0)
    found = compare_shapes(places, mean, axis)
    if found.broken is None or found.margin <= STRONG:
        flat = found.smooth.shape.name == "flat"
        return CurveVerdict(kind="none" if flat else "smooth", margin=found.margin, evidence=found)
    best = found.broken
    start, middle, end = (best.start + z * best.span for z in _course(best))
    width = end - start
    steep = width < STEEP * best.span or (kind == "log" and width < SHORT)
    low, high = _interval(best, places, rows, middle, seed)
    near = int(np.argmin(np.abs(axis.u(places) - middle)))
    at = sorted((axis.x(low), axis.x(high)))
    return CurveVerdict(
        kind="jump" if steep else "bend",
        break_at=axis.x(middle),
        low=at[0],
        high=at[1],
        start=axis.x(start),
        end=axis.x(end),
        width=width,
        margin=found.margin,
        modes=modes(rows[:, near], seed) if len(rows) > 1 else None,
        evidence=found,
    )


def _course(fitted: Fitted) -> np.ndarray:
    """Start, middle and end of a fit's change, in z."""
    start, end = transition(fitted)
    z = np.linspace(0, 1, 801)
    middle = transitions((fitted.shape.basis(fitted.theta, z) @ fitted.b)[None])[0, 1]
    return np.array([start, middle, end])


def _interval(best: Fitted, x: np.ndarray, rows: np.ndarray, middle: float, seed: int) -> tuple[float, float]:
    """Of the break, in u; never narrower than the seeds' own differences say."""
    if len(rows) >= ENOUGH_SEEDS:
        _, _, low, high = mean_interval(_middles(best, x, rows))
        return min(low, middle), max(high, middle)
    rng = np.random.default_rng(seed)
    fitted = np.asarray(best.predict(x))
    left = (rows.mean(0) - fitted) * math.sqrt(len(x) / max(len(x) - best.parameters, 1))
    drawn = _middles(best, x, fitted + rng.choice(left, (DRAWS, len(x))))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return min(float(low), middle), max(float(high), middle)


def _middles(best: Fitted, x: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Where the same shape breaks, fitted to each y [B, n], in u [B]."""
    z = np.linspace(0, 1, 801)
    theta, b = refit(best, x, ys)
    curves = np.array([best.shape.basis(t, z) @ one for t, one in zip(theta, b, strict=True)])
    return best.start + transitions(curves)[:, 1] * best.span


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Of a hard metric and a soft one of the same answers. whose: "model", "metric", "nobody" (there is no jump) or
    "undecided"."""

    whose: Literal["model", "metric", "nobody", "undecided"]
    sentence: str


def verdict(hard: CurveVerdict, soft: CurveVerdict, hard_name: str, soft_name: str, x_name: str) -> Verdict:
    """Whether the hard metric's jump or bend is the model's or the metric's."""
    said = f"{hard_name} {hard.words(x_name)}; {soft_name} {soft.words(x_name)}"
    if "unknown" in (hard.kind, soft.kind):
        return Verdict(whose="undecided", sentence=f"{said}: undecided")
    if not hard.breaks:
        return Verdict(whose="nobody", sentence=f"{said}: no jump")
    if soft.kind == "none":
        return Verdict(whose="undecided", sentence=f"{said}: undecided, the soft metric saw nothing")
    if not soft.breaks:
        return Verdict(whose="metric", sentence=f"{said}: the {hard.kind} is the metric's")
    if same_place(hard, soft):
        return Verdict(whose="model", sentence=f"{said}: the {hard.kind} is real, both break at one place")
    apart = abs(math.log10(hard.break_at / soft.break_at)) if hard.break_at > 0 and soft.break_at > 0 else math.nan
    where = "at different places" if math.isnan(apart) else f"{apart:.1f} decades apart"
    return Verdict(whose="undecided", sentence=f"{said}: undecided, they break {where}")


def same_place(a: CurveVerdict, b: CurveVerdict) -> bool:
    """Whether two breaks' intervals overlap, or the breaks lie within a factor of the square root of 10."""
    if a.low <= b.high and b.low <= a.high:
        return True
    return min(a.break_at, b.break_at) > 0 and abs(math.log10(a.break_at / b.break_at)) <= SAME


def bimodal_words(found: Modes) -> str:
    """What the seeds' values at one place look like."""
    if not found.enough:
        return f"too few seeds to tell groups; the largest gap is {found.gap:.0%} of their range"
    return f"{either(found.count, 'group')} (p = {found.p:.3f} for one)"
