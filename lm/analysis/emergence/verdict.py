"""Is it a jump, and whose: the model's or the metric's? Verdicts in numbers and in words.

A jump of a hard metric, such as exact match, is the metric's where a soft metric of the same answers, such as their
log-probability, goes on smoothly (Schaeffer et al. 2023), and the model's where both break at the same place (over
training loss instead of compute: Du et al. 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from lm.analysis.emergence.bimodal import Modes, modes
from lm.analysis.emergence.evidence import FINELY, Evidence, compare_shapes, transitions
from lm.analysis.emergence.shapes import LEAST, Axis, Fitted, Kind, refit
from lm.analysis.paired import mean_interval
from lm.analysis.tables import TableError
from lm.analysis.text import either, si

Shape = Literal["jump", "bend", "smooth", "none", "unknown"]

STRONG = 6.0  # difference of BIC from which evidence is called strong (Kass and Raftery 1995)
MISS = (
    0.02  # of the range of y: a smooth shape whose residuals are less describes the curve, however many points say no
)
STEEP = 0.25  # of the observed stretch: a break that most of the change passes in less of it is a jump
SHORT = 0.5  # decades: one that takes less is a jump, however short the observed stretch is
SAME = 0.5  # decades, a factor of the square root of 10: breaks as near as this are at one place
HIDDEN = 0.5  # of its change: a soft metric that may do as much in the hard one's jump isn't known to be smooth
INSIDE = 2  # points in a jump from which on they tell its place: it and its width are two numbers
DRAWS = 200  # of the residual bootstrap
ENOUGH_SEEDS = 3  # from here on, seeds themselves say how far a break is known


@dataclass(frozen=True, kw_only=True)
class CurveVerdict:
    """One metric's curve.

    kind: "jump" breaks and most of its change takes little of the stretch; "bend" breaks, gradually; "smooth" changes
    without a break; "none" doesn't change beyond noise; "unknown": too few points. break_at: the middle of the change,
    from start to end (80% of it), in x; low, high: the 95% interval of break_at. width: decades from start to end
    (units of x on a linear axis); width_low, width_high: its interval. margin: the evidence for a break (`Evidence`).
    modes: of the seeds' values at the x nearest to the break.
    """

    kind: Shape
    break_at: float = math.nan
    low: float = math.nan
    high: float = math.nan
    start: float = math.nan
    end: float = math.nan
    width: float = math.nan
    width_low: float = math.nan
    width_high: float = math.nan
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


def curve_verdict(x: Any, values: Any, axis: Kind = "log", least: float = 0.0, seed: int = 0) -> CurveVerdict:
    """The verdict on a curve: values [seeds, n] or [n] at x [n], in the order of progress (x may fall, as a loss does).

    Shapes are compared on the mean over seeds. It breaks where the best broken shape has strong evidence over the best
    smooth one, and smooth ones miss by more than can be neglected. least: a change that is smaller is none, such as
    what the examples of an accuracy can tell from chance (`scores.detectable`). x = 0 has no place on a log axis and is
    left out. seed: of the bootstrap (see `_interval`).
    """
    places, rows = np.asarray(x, float), np.atleast_2d(np.asarray(values, float))
    if rows.size and (rows.shape[1] != len(places) or not np.isfinite(rows).all()):
        raise TableError(f"a curve needs a number for every seed and x; got values {rows.shape} at {len(places)} x")
    if axis == "log" and rows.size:
        places, rows = places[places != 0], rows[:, places != 0]
    if len(np.unique(places)) < LEAST or not rows.size:
        return CurveVerdict(kind="unknown")
    mean = rows.mean(0)
    found = compare_shapes(places, mean, Axis.of(places, axis))
    if found.change <= STRONG or np.ptp(mean) < least:
        return CurveVerdict(kind="none", margin=found.margin, evidence=found)
    best, missed = found.broken, math.sqrt(found.smooth.rss / found.smooth.points)
    if best is None or found.margin <= STRONG or missed < MISS * np.ptp(mean):
        return CurveVerdict(kind="smooth", margin=found.margin, evidence=found)
    return _broken(best, places, rows, found, seed)


def _broken(best: Fitted, x: np.ndarray, rows: np.ndarray, found: Evidence, seed: int) -> CurveVerdict:
    """A jump or a bend, with where it is."""
    u, on = best.axis.u(x), best.axis.x
    course = _courses(best, x, found.y[None])[0]
    start, middle, end = course
    low, high, width_low, width_high = _intervals(best, x, rows, course, seed)
    width, inside = end - start, int(np.sum((u > start) & (u < end)))
    if inside < INSIDE:  # then the points don't tell where between its neighbours it is, nor how narrow it may be
        before, after = float(u[u <= middle].max()), float(u[u >= middle].min())
        low, high = min(low, before), max(high, after)
        width_low, width_high = 0.0, max(width_high, after - before)
    if inside == 0:
        start, end = min(start, before), max(end, after)
    ends = sorted((on(low), on(high)))
    near = rows[:, int(np.argmin(np.abs(u - middle)))]
    steep = width < STEEP * best.span or (best.axis.kind == "log" and width < SHORT)
    return CurveVerdict(
        kind="jump" if steep else "bend", break_at=on(middle), low=ends[0], high=ends[1], start=on(start), end=on(end),
        width=width, width_low=width_low, width_high=width_high, margin=found.margin,
        modes=modes(near, seed) if len(rows) > 1 else None, evidence=found,
    )  # fmt: skip


def _courses(best: Fitted, x: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """[B, 3]: start, middle and end of the change, in u, of the same shape fitted to each y [B, n]."""
    theta, b = refit(best, x, ys)
    curves = np.einsum("bnk,bk->bn", best.shape.basis(theta, FINELY), b)
    return best.start + transitions(curves) * best.span


def _intervals(
    best: Fitted, x: np.ndarray, rows: np.ndarray, course: np.ndarray, seed: int
) -> tuple[float, float, float, float]:
    """95% intervals of the middle and the width, in u: Student's over those of the seeds where there are 3 and more,
    else of a bootstrap of residuals. They are stretched to the mean curve's own where it lies outside."""
    if len(rows) >= ENOUGH_SEEDS:
        drawn = _courses(best, x, rows)
        ends = [mean_interval(each)[2:] for each in (drawn[:, 1], drawn[:, 2] - drawn[:, 0])]
    else:
        fitted = np.asarray(best.predict(x))
        # residuals of a fit are smaller than the noise that they are of
        left = (rows.mean(0) - fitted) * math.sqrt(len(x) / (len(x) - best.parameters))
        drawn = _courses(best, x, fitted + np.random.default_rng(seed).choice(left, (DRAWS, len(x))))
        ends = [np.quantile(each, [0.025, 0.975]) for each in (drawn[:, 1], drawn[:, 2] - drawn[:, 0])]
    (low, high), (narrow, wide) = ends
    middle, width = float(course[1]), float(course[2] - course[0])
    first, last = best.start, best.start + best.span
    return (
        min(max(float(low), first), middle), max(min(float(high), last), middle),
        min(max(float(narrow), 0.0), width), max(float(wide), width),
    )  # fmt: skip


# ---- two metrics of the same answers -----------------------------------------------------------------------------


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
    if not hard.breaks and hard.margin > 0 and hard.kind == "smooth":
        weak = f"there is some evidence for a break of {hard_name}, {hard.margin:.1f}, and {STRONG:g} would be strong"
        return Verdict(whose="undecided", sentence=f"{said}: undecided, {weak}")
    if not hard.breaks:
        return Verdict(whose="nobody", sentence=f"{said}: no jump")
    if soft.kind == "none":
        return Verdict(whose="undecided", sentence=f"{said}: undecided, the soft metric saw nothing")
    if soft.kind == "smooth" and hidden(hard, soft) >= HIDDEN:
        noise = f"{soft_name} is too noisy to exclude a {hard.kind} at the same place"
        return Verdict(whose="undecided", sentence=f"{said}: undecided, {noise}")
    if not soft.breaks:
        return Verdict(whose="metric", sentence=f"{said}: the {hard.kind} is the metric's")
    if same_place(hard, soft):
        return Verdict(whose="model", sentence=f"{said}: the {hard.kind} is real, both break at one place")
    return Verdict(whose="undecided", sentence=f"{said}: undecided, they break at different places")


def hidden(hard: CurveVerdict, soft: CurveVerdict) -> float:
    """How much of a smooth metric's change may be a break like the hard metric's: the upper end of the 95% interval of
    its share, where the soft metric is its smooth shape and so much of the hard metric's curve (least squares)."""
    assert hard.evidence is not None and hard.evidence.broken is not None and soft.evidence is not None
    x, y, smooth = soft.evidence.x, soft.evidence.y, soft.evidence.smooth
    step = np.asarray(hard.evidence.broken.predict(x))
    columns = np.column_stack([smooth.shape.basis(smooth.theta, smooth.z(x)), step])
    left = len(x) - columns.shape[1]
    if left < 1 or np.linalg.matrix_rank(columns) < columns.shape[1]:
        return math.inf
    b, rss = np.linalg.lstsq(columns, y)[:2]
    error = math.sqrt(float(rss[0]) / left * np.linalg.inv(columns.T @ columns)[-1, -1])
    most = abs(b[-1]) + float(stdtrit(left, 0.975)) * error
    return float(most * np.ptp(step) / np.ptp(np.asarray(smooth.predict(x))))


def same_place(a: CurveVerdict, b: CurveVerdict) -> bool:
    """Whether two breaks' intervals overlap, or the breaks lie within a factor of the square root of 10 on a log axis,
    if that is little of what was observed."""
    if a.low <= b.high and b.low <= a.high:
        return True
    assert a.evidence is not None
    axis, span = a.evidence.smooth.axis, a.evidence.smooth.span
    near = abs(float(axis.u(a.break_at) - axis.u(b.break_at)))
    return axis.kind == "log" and near <= min(SAME, STEEP * span)


def bimodal_words(found: Modes) -> str:
    """What the seeds' values at one place look like."""
    if not found.enough:
        return f"too few seeds to tell groups; the largest gap is {found.gap:.0%} of their range"
    return f"{either(found.count, 'group')} (p = {found.p:.3f} for one)"
