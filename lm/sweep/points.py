"""The points of a sweep: tuples of {path: value}. A sweep language in four functions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from lm.config import ConfigError

Point = dict[str, Any]
Points = tuple[Point, ...]


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
