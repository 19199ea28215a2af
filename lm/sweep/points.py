"""The points of a sweep: tuples of {path: value}. A sweep language in six functions, which nest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from lm.config import ConfigError, dumps
from lm.sweep.space import Distribution

Point = dict[str, Any]
Points = tuple[Point, ...]
Method = Literal["random", "sobol"]
BLOCK = 64  # points drawn at a time


def grid(axes: Mapping[str, Iterable[Any]]) -> Points:
    """Every combination; the last axis changes fastest."""
    values = [list(v) for v in axes.values()]
    return tuple(dict(zip(axes, point, strict=True)) for point in itertools.product(*values))


def zipped(axes: Mapping[str, Iterable[Any]]) -> Points:
    """The first values together, then the second ones, ..."""
    values = {path: list(v) for path, v in axes.items()}
    if len({len(v) for v in values.values()}) > 1:
        lengths = ", ".join(f"{path}: {len(v)}" for path, v in values.items())
        raise ConfigError(f"zipped axes must be equally long; they have {lengths}")
    return tuple(dict(zip(values, point, strict=True)) for point in zip(*values.values(), strict=True))


def sample(space: Mapping[str, Distribution], n: int, seed: int = 0, method: Method = "random") -> Points:
    """`n` different points of a space, path -> distribution, such as {"train.clip": uniform(0.5, 2.0)}.

    More points with the same seed begin with the same ones. "sobol": scrambled Sobol points (Matousek 1998), which
    leave smaller holes than random ones do; only a power of 2 of them is even, and any other n is an error. A point
    that came before is left out and another drawn, so where there are few values, Sobol points aren't even either.
    """
    if n < 1:
        raise ConfigError(f"sample: n={n} must be at least 1")
    check(space)
    if n > (most := size(space)):
        raise ConfigError(f"sample: n={n}, but the space has only {most:.0f} points; grid gives all of them")
    if method == "sobol" and n & (n - 1):
        below = 1 << (n.bit_length() - 1)
        raise ConfigError(
            f"sample: {n} Sobol points aren't even, only powers of 2 are; use n={below} or n={2 * below}, "
            "or method='random'"
        )
    found: dict[str, Point] = {}
    for point in draws(space, seed, method):
        found.setdefault(dumps(point), point)
        if len(found) == n:
            break
    return tuple(found.values())


def draws(space: Mapping[str, Distribution], seed: int = 0, method: Method = "random") -> Iterator[Point]:
    """Points of a space without end; one may come again."""
    check(space)
    for shares in _cube(len(space), seed, method):
        yield {path: each.at(share) for (path, each), share in zip(space.items(), shares, strict=True)}


def size(space: Mapping[str, Distribution]) -> float:
    """How many points a space has."""
    return math.prod(distribution.size for distribution in space.values())


def check(space: Mapping[str, Any]) -> None:
    """Raises ConfigError for what is no space."""
    if not space:
        raise ConfigError("a space needs at least one path, such as {'train.clip': uniform(0.5, 2.0)}")
    for path, distribution in space.items():
        if not isinstance(distribution, Distribution):
            raise ConfigError(
                f"{path} must have a distribution, got {distribution!r}; "
                "use uniform, log_uniform, integers or choice from lm.sweep"
            )


def _cube(dimensions: int, seed: int, method: Method) -> Iterator[list[float]]:
    """Points of the unit cube, without end."""
    generator = np.random.default_rng(seed)
    if method == "sobol":
        from scipy.stats import qmc

        sobol: Any = qmc.Sobol  # `seed` is what every SciPy takes; the types know only the new name of it
        draw = sobol(dimensions, scramble=True, seed=generator).random
    elif method == "random":
        draw = lambda n: generator.random((n, dimensions))  # noqa: E731
    else:
        raise ConfigError(f"there is no method '{method}' to sample by; it is 'random' or 'sobol'")
    while True:
        yield from draw(BLOCK).tolist()


def chain(*parts: Points) -> Points:
    """One set of points after another."""
    return tuple(itertools.chain(*parts))


def cross(*parts: Points) -> Points:
    """Every combination of the points of several sets. A path in two of them is an error: which would hold?"""
    out: Points = ({},)
    for part in parts:
        for a, b in itertools.product(out, part):
            if a.keys() & b.keys():
                raise ConfigError(f"crossed points both set {', '.join(sorted(a.keys() & b.keys()))}")
        out = tuple({**a, **b} for a in out for b in part)
    return out


def prefix(path: str, points: Points) -> Points:
    """The points with `path` before each of their paths: prefix("train.optimizer", grid({"learning_rate": [...]}))."""
    return tuple({f"{path}.{below}": value for below, value in point.items()} for point in points)
