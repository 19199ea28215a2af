"""What the sizes of recurrent mixers have in common."""

from __future__ import annotations

from typing import Any

from lm.config import ConfigError


def at_least_one(spec: Any, *fields: str) -> None:
    """Raises ConfigError for a size below 1."""
    for name in fields:
        if getattr(spec, name) < 1:
            raise ConfigError(f"{type(spec).__name__}: {name}={getattr(spec, name)} must be at least 1")


def divides(spec: Any, groups: str, heads: str) -> None:
    """Raises ConfigError where `groups` can't share `heads` evenly."""
    at_least_one(spec, groups, heads)
    few, many = getattr(spec, groups), getattr(spec, heads)
    if many % few:
        raise ConfigError(f"{type(spec).__name__}: {groups}={few} must divide {heads}={many}")
