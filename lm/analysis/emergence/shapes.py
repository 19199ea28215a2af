"""Shapes of a curve over scale, smooth ones and ones that break, and their least-squares fits.

A shape is a function of u, the place along an `Axis` (log10 x, unless said otherwise). All are linear in most of their
parameters, which are solved for (variable projection, Golub and Pereyra 1973); what is left, two numbers or fewer but
for the BNSL, is looked for on a grid and from its best points. Inside, z = 0..1 is the observed stretch of u.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from lm.analysis.tables import TableError

Kind = Literal["log", "linear"]
Range = tuple[float, float, int]  # least, most, and how many places the grid has between them

LEAST = 6  # different x: with fewer, no breaking shape leaves an error to judge it by
STARTS = 8  # points of the grid, the best ones that aren't neighbours, from which the search goes on
FEWER = 3  # of each of many curves, such as resamples
STEPS = 30  # of each
NEARBY = 1e-6  # of the grid's step: for differences
RISE = 2 * math.log(9)  # scales of a logistic from 10% to 90% of its rise


@dataclass(frozen=True)
class Axis:
    """Where x lies along a curve: u = log10 x, or x itself ("linear"); negative where progress is towards smaller x, as
    with a loss."""

    kind: Kind = "log"
    falling: bool = False

    @staticmethod
    def of(x: Any, kind: Kind = "log") -> Axis:
        """The axis of x in the order of progress. Raises TableError for x that doesn't rise or fall throughout."""
        steps = np.diff(np.asarray(x, float))
        if kind not in ("log", "linear"):
            raise TableError(f"axis='{kind}' must be 'log' or 'linear'")
        if not (np.all(steps >= 0) or np.all(steps <= 0)):
            raise TableError("x neither rises nor falls throughout: sort the points in the order of progress")
        return Axis(kind, bool(np.sum(steps) < 0))

    def u(self, x: Any) -> np.ndarray:
        """Raises TableError for what isn't on the axis."""
        found = np.asarray(x, float)
        if not np.isfinite(found).all() or (self.kind == "log" and np.any(found <= 0)):
            least = float(np.min(found, initial=math.inf))
            raise TableError(f"a {self.kind} axis has no place for every x (the least is {least:g}); leave those out")
        return (-1 if self.falling else 1) * (np.log10(found) if self.kind == "log" else found)

    def x(self, u: Any) -> Any:
        there = np.asarray(u, float) * (-1 if self.falling else 1)
        found = 10**there if self.kind == "log" else there
        return float(found) if found.ndim == 0 else found


class Shape(abc.ABC):
    """A family of curves. linear: how many parameters it is linear in; the others are `ranges`."""

    name: ClassVar[str]
    linear: ClassVar[int]
    breaks: ClassVar[bool] = False

    @abc.abstractmethod
    def basis(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        """[..., n, linear] of theta [..., free] and z [n]. The first column is ones."""

    def ranges(self, z: np.ndarray) -> tuple[Range, ...]:
        """Where the parameters it isn't linear in are looked for, given the places of the points."""
        return ()

    @abc.abstractmethod
    def numbers(self, theta: np.ndarray, b: np.ndarray, start: float, span: float) -> dict[str, float]:
        """Its parameters in u, by name; z = (u - start) / span."""

    def parameters(self, z: np.ndarray) -> int:
        return self.linear + len(self.ranges(z))


@dataclass(frozen=True)
class Flat(Shape):
    """a."""

    name = "flat"
    linear = 1

    def basis(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.ones((*theta.shape[:-1], len(z), 1))

    def numbers(self, theta: np.ndarray, b: np.ndarray, start: float, span: float) -> dict[str, float]:
        return {"a": b[0]}


@dataclass(frozen=True)
class Line(Shape):
    """a + b u."""

    name = "line"
    linear = 2

    def basis(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        return _columns(theta, z)

    def numbers(self, theta: np.ndarray, b: np.ndarray, start: float, span: float) -> dict[str, float]:
        return {"a": b[0] - b[1] * start / span, "b": b[1] / span}


@dataclass(frozen=True)
class Quadratic(Shape):
    """a + b u + c u^2."""

    name = "quadratic"
    linear = 3

    def basis(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        return _columns(theta, z, z**2)

    def numbers(self, theta: np.ndarray, b: np.ndarray, start: float, span: float) -> dict[str, float]:
        slope, bend, at = b[1] / span, b[2] / span**2, start
        return {"a": b[0] - slope * at + bend * at**2, "b": slope - 2 * bend * at, "c": bend}


@dataclass(frozen=True)
class PowerLaw(Shape):
    """a + b 10^(-c u) with c > 0: on a log axis the power law a + b x^-c, on a linear one an exponential. Its change
    slows down with progress: a curve that is faster and faster has to be straight, a quadratic, or broken."""

    name = "power law"
    linear = 2

    def basis(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        rate = theta[..., :1]
        # as stable as a line where the rate is small
        return _columns(theta, z, np.expm1(-rate * z) / rate)[..., [0, 2]]

    def ranges(self, z: np.ndarray) -> tuple[Range, ...]:
        return ((0.1, 30.0, 60),)  # from a line to e^-30 at the end

    def numbers(self, theta: np.ndarray, b: np.ndarray, start: float, span: float) -> dict[str, float]:
        rate = theta[0]
        return {
            "a": b[0] - b[1] / rate,
            "b": b[1] / rate * _exp(rate * start / span),
            "c": rate / (span * math.log(10)),
        }


@dataclass(frozen=True)
class Logistic(Shape):
    """low + (high - low) / (1 + exp(-(u - mid) / scale)): between two levels, its midpoint in the observed stretch.

    low and high are the levels before and after; width is what u takes from 10% to 90% of the rise high - low.
    """

    name = "logistic"
    linear = 2
    breaks = True

    def basis(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        middle, width = theta[..., :1], np.exp(theta[..., 1:])
        return _columns(theta, z, (1 + np.tanh((z - middle) * RISE / (2 * width))) / 2)[..., [0, 2]]

    def ranges(self, z: np.ndarray) -> tuple[Range, ...]:
        # a rise narrower than the gap that it lies in has no width that points could tell
        narrow = float(np.median(np.diff(np.unique(z)))) / 4
        return (0.0, 1.0, 65), (math.log(narrow), math.log(4.0), 25)

    def numbers(self, theta: np.ndarray, b: np.ndarray, start: float, span: float) -> dict[str, float]:
        width = math.exp(theta[1]) * span
        levels = {"low": b[0], "high": b[0] + b[1], "rise": b[1]}
        return {**levels, "mid": start + theta[0] * span, "scale": width / RISE, "width": width}


@dataclass(frozen=True)
class Piecewise(Shape):
    """A line and, from a break on, another one that begins where the first ends. Each has at least three points."""

    name = "piecewise"
    linear = 3
    breaks = True

    def basis(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        return _columns(theta, z, np.maximum(z - theta[..., :1], 0))

    def ranges(self, z: np.ndarray) -> tuple[Range, ...]:
        places = np.sort(z)
        return ((float(places[2]), float(places[-3]), 65),)

    def numbers(self, theta: np.ndarray, b: np.ndarray, start: float, span: float) -> dict[str, float]:
        before, after = b[1] / span, (b[1] + b[2]) / span
        return {"break": start + theta[0] * span, "before": before, "after": after, "a": b[0] - before * start}


@dataclass(frozen=True)
class Broken(Shape):
    """A broken neural scaling law with one break (Caballero et al. 2023, eq. 1), of either sign: with X = 10^u,
    a + b X^-c_0 (1 + (X / d_1)^(1 / f_1))^(-c_1 f_1). d_1 is given as log10. (`lm.analysis.scaling.laws.bnsl` fits the
    logarithms of positive values that fall; scores rise, and may be 0 or negative.)"""

    name = "bnsl"
    linear = 2
    breaks = True

    def basis(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        power = self._power(theta, z)
        return _columns(theta, z, np.exp(power - power.max(-1, keepdims=True)))[..., [0, 2]]

    def _power(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        first, change, at, sharp = (theta[..., i : i + 1] for i in range(4))
        return -first * z - 10 * np.sinh(change) * np.exp(sharp) * np.logaddexp(0, (z - at) / np.exp(sharp))

    def ranges(self, z: np.ndarray) -> tuple[Range, ...]:
        # the change of slope spans orders of magnitude of either sign: by its inverse hyperbolic sine
        return (-3.0, 15.0, 7), (-3.0, 3.0, 8), (0.0, 1.0, 13), (math.log(0.005), math.log(0.5), 5)

    def numbers(self, theta: np.ndarray, b: np.ndarray, start: float, span: float) -> dict[str, float]:
        unit = span * math.log(10)
        power = float(self._power(theta, np.linspace(0, 1, 2001)).max())
        c_0, c_1 = theta[0] / unit, 10 * math.sinh(theta[1]) / unit
        scale = _exp(c_0 * start * math.log(10) - power)
        place = {"d_1": start + theta[2] * span, "f_1": math.exp(theta[3]) * unit}
        return {"a": b[0], "b": b[1] * scale, "c_0": c_0, "c_1": c_1, **place}


SMOOTH: tuple[Shape, ...] = (Flat(), Line(), Quadratic(), PowerLaw())
BREAKING: tuple[Shape, ...] = (Logistic(), Piecewise(), Broken())


@dataclass(frozen=True)
class Fitted:
    """A shape fitted to points. rss: the (weighted) residual sum of squares. theta, b: as its `basis` has them."""

    shape: Shape
    axis: Axis
    start: float
    span: float
    theta: np.ndarray
    b: np.ndarray
    rss: float
    points: int
    parameters: int

    @property
    def numbers(self) -> Mapping[str, float]:
        """Its parameters by name, and where a logistic has its `midpoint` and a piecewise line its `break_at`, in x."""
        found = {k: float(v) for k, v in self.shape.numbers(self.theta, self.b, self.start, self.span).items()}
        for name, there in {"mid": "midpoint", "break": "break_at"}.items():
            if name in found:
                found[there] = self.axis.x(found[name])
        return found

    def z(self, x: Any) -> np.ndarray:
        return (self.axis.u(x) - self.start) / self.span

    def predict(self, x: Any) -> Any:
        z = self.z(x)
        found = (self.shape.basis(self.theta, np.atleast_1d(z)) @ self.b).reshape(z.shape)
        return float(found) if found.ndim == 0 else found


def fit_shape(shape: Shape, x: Any, y: Any, weights: Any = None, axis: Axis = Axis()) -> Fitted:
    """The least squares of a shape on points (x, y), `weights` on their squares.

    Raises TableError for fewer points than parameters and one, or for points at a single x.
    """
    u, values = axis.u(x), np.asarray(y, float)
    w = np.ones(len(u)) if weights is None else np.asarray(weights, float)
    if not (u.shape == values.shape == w.shape) or not np.isfinite(values).all() or not np.all(w > 0):
        raise TableError("a curve needs a number y, and a positive weight, at every x")
    start, span = float(u.min()), float(np.ptp(u))
    different, least = len(np.unique(u)), LEAST if shape.breaks else 2
    if different < least:
        raise TableError(f"{different} different x are too few for a {shape.name} curve; {least} are needed")
    z, root = (u - start) / span, np.sqrt(w)
    free = shape.ranges(z)
    if len(u) <= shape.linear + len(free):
        raise TableError(
            f"{len(u)} points are too few for the {shape.parameters(z)} parameters of a {shape.name} curve"
        )
    theta = _search(shape, z, (values * root)[None], root, STARTS)[0] if free else np.zeros(0)
    basis = shape.basis(theta, z)
    b = np.linalg.lstsq(basis * root[:, None], values * root, rcond=1e-10)[0]
    rss = float(np.sum(w * (values - basis @ b) ** 2))
    return Fitted(shape, axis, start, span, theta, b, rss, len(u), shape.parameters(z))


def refit(fitted: Fitted, x: Any, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same shape fitted to many y [B, n] at the same x, all at once: theta [B, free] and b [B, linear]."""
    shape, z = fitted.shape, fitted.z(x)
    theta = _search(shape, z, ys, np.ones(len(z)), FEWER) if shape.ranges(z) else np.zeros((len(ys), 0))
    return theta, np.einsum("bkn,bn->bk", np.linalg.pinv(shape.basis(theta, z), rcond=1e-10), ys)


def _search(shape: Shape, z: np.ndarray, ys: np.ndarray, root: np.ndarray, count: int) -> np.ndarray:
    """For each row of y [B, n], times the root of the weights, the least squares over theta [B, free]: from its best
    `count` points of the grid, all rows at once, by the steps of Levenberg (1944) and Marquardt (1963)."""
    ranges = shape.ranges(z)
    low, high, step = _bounds(ranges)
    grid = np.stack([g.ravel() for g in np.meshgrid(*[np.linspace(*r) for r in ranges], indexing="ij")], axis=-1)
    q = orthonormal(shape.basis(grid, z) * root[:, None])  # [G, n, k]
    explained = np.sum(np.einsum("bn,gnk->bgk", ys, q, optimize=True) ** 2, axis=-1)
    starts = [_apart(grid[np.argsort(-row, kind="stable")[: 50 * count]], step, count) for row in explained]
    owner = np.repeat(np.arange(len(ys)), [len(each) for each in starts])
    theta, y = np.concatenate(starts), ys[owner, None]

    def residual(theta: np.ndarray) -> np.ndarray:  # [M, g, n] of theta [M, g, free]
        q = orthonormal(shape.basis(theta, z) * root[:, None])
        return y - np.einsum("mgnk,mgk->mgn", q, np.einsum("mgnk,mon->mgk", q, y))

    aside = np.diag(NEARBY * step)
    damping = np.full((len(theta), 1), 1e-2)
    left = residual(theta[:, None])[:, 0]
    for _ in range(STEPS):
        slopes = (residual(theta[:, None] + aside) - left[:, None]) / NEARBY  # [M, free, n], by grid steps
        normal = slopes @ slopes.swapaxes(1, 2)
        size = np.einsum("mff->mf", normal)
        # a parameter that changes nothing stays where it is
        normal = normal + np.eye(len(step)) * (damping * np.maximum(size, 1e-12 * size.max(1, keepdims=True)))[:, None]
        normal = normal + 1e-200 * np.eye(len(step))
        move = np.linalg.solve(normal, np.einsum("mfn,mn->mf", slopes, left)[..., None])[..., 0]
        moved = np.clip(theta - move * step, low, high)
        then = residual(moved[:, None])[:, 0]
        better = (np.sum(then**2, -1) < np.sum(left**2, -1))[:, None]
        theta, left = np.where(better, moved, theta), np.where(better, then, left)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-9, 1e9)
    rss = np.sum(left**2, axis=-1)
    return np.array([theta[owner == row][rss[owner == row].argmin()] for row in range(len(ys))])


def _apart(places: np.ndarray, step: np.ndarray, count: int) -> np.ndarray:
    """The first `count` of the places that aren't neighbours of earlier ones."""
    kept: list[np.ndarray] = []
    for place in places:
        if all(np.any(np.abs(place - other) > 1.5 * step) for other in kept):
            kept.append(place)
        if len(kept) == count:
            break
    return np.array(kept)


def _bounds(ranges: tuple[Range, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least, most and the grid's step of each parameter."""
    low, high, count = (np.array(ends, float) for ends in zip(*ranges, strict=True))
    return low, high, (high - low) / (count - 1)


def orthonormal(basis: np.ndarray) -> np.ndarray:
    """Orthonormal columns [..., n, k] of the same span; a column that depends on those before it becomes 0, for what
    rounding leaves of it is a direction that the shape doesn't have."""
    made: list[np.ndarray] = []
    for k in range(basis.shape[-1]):
        column, size = basis[..., k], np.linalg.norm(basis[..., k], axis=-1, keepdims=True)
        for _ in range(2):  # twice, for what rounding leaves of the first time
            for other in made:
                column = column - np.sum(column * other, axis=-1, keepdims=True) * other
        left = np.linalg.norm(column, axis=-1, keepdims=True)
        made.append(np.where(left > 1e-8 * size, column / np.where(left > 0, left, 1), 0))
    return np.stack(made, axis=-1)


def _columns(theta: np.ndarray, z: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """Columns of ones, z and more [..., n], side by side."""
    shape = (*theta.shape[:-1], len(z))
    return np.stack([np.broadcast_to(c, shape) for c in (np.ones(len(z)), z, *more)], axis=-1)


def _exp(power: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(power))
