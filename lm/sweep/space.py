"""Distributions over the values of one field: what `sample` draws from and a `Search` looks through."""

from __future__ import annotations

import math
from typing import Any

from lm.config import ConfigError, config, dumps


@config
class Distribution:
    """Values that a field may take, and how likely each is."""

    def at(self, share: float) -> Any:
        """The value below which a `share`, in [0, 1), of the distribution lies: the inverse of its cumulative."""
        raise NotImplementedError

    def suggest(self, trial: Any, path: str) -> Any:
        """The value that an Optuna trial has for `path`, drawn now if it has none yet."""
        raise NotImplementedError

    def ends(self) -> tuple[Any, ...]:
        """Its lowest and its highest value, or every option where there is no order."""
        raise NotImplementedError

    @property
    def size(self) -> float:
        """How many values it has."""
        return math.inf


@config
class Uniform(Distribution):
    """Any real number from low to high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self, self.low, self.high)

    def at(self, share: float) -> float:
        return min(self.low + share * (self.high - self.low), self.high)

    def suggest(self, trial: Any, path: str) -> float:
        return trial.suggest_float(path, self.low, self.high)

    def ends(self) -> tuple[float, ...]:
        return self.low, self.high


@config
class LogUniform(Distribution):
    """Any real number from low to high; equal factors are equally likely, as suits rates."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self, self.low, self.high)
        if self.low <= 0:
            raise ConfigError(f"LogUniform.low={self.low} must be positive; a range that reaches 0 is uniform")

    def at(self, share: float) -> float:
        value = math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        return min(max(value, self.low), self.high)

    def suggest(self, trial: Any, path: str) -> float:
        return trial.suggest_float(path, self.low, self.high, log=True)

    def ends(self) -> tuple[float, ...]:
        return self.low, self.high


@config
class Integers(Distribution):
    """Whole numbers low, low + step, ..., high, all equally likely.

    log: a number is as likely as the stretch of half a number around it is long on a logarithmic axis.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        _ordered(self, self.low, self.high)
        if self.step < 1:
            raise ConfigError(f"Integers.step={self.step} must be at least 1")
        if (self.high - self.low) % self.step:
            last = self.high - (self.high - self.low) % self.step
            raise ConfigError(f"Integers.high={self.high} is never reached in steps of {self.step}; set high={last}")
        if self.log and (self.low < 1 or self.step > 1):
            raise ConfigError("Integers(log=True) needs low of at least 1 and step=1; choice(...) takes any numbers")

    def at(self, share: float) -> int:
        if not self.log:
            return self.low + self.step * int(share * self.size)
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(max(round(math.exp(low + share * (high - low))), self.low), self.high)

    def suggest(self, trial: Any, path: str) -> int:
        return trial.suggest_int(path, self.low, self.high, step=self.step, log=self.log)

    def ends(self) -> tuple[int, ...]:
        return self.low, self.high

    @property
    def size(self) -> float:
        return (self.high - self.low) // self.step + 1


@config
class Choice(Distribution):
    """One of some values, components too, all equally likely. No order is assumed among them."""

    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ConfigError(f"a choice needs at least 2 options, got {self.options}")
        for i, option in enumerate(self.labels):
            if option in self.labels[:i]:
                raise ConfigError(f"a choice has the option {option} twice")

    @property
    def labels(self) -> list[str]:
        """Each option as JSON: what Optuna knows it by."""
        return [dumps(option) for option in self.options]

    def at(self, share: float) -> Any:
        return self.options[int(share * len(self.options))]

    def suggest(self, trial: Any, path: str) -> Any:
        return self.options[self.labels.index(trial.suggest_categorical(path, self.labels))]

    def ends(self) -> tuple[Any, ...]:
        return self.options

    @property
    def size(self) -> float:
        return len(self.options)


def uniform(low: float, high: float) -> Uniform:
    """Any real number from low to high."""
    return Uniform(low=low, high=high)


def log_uniform(low: float, high: float) -> LogUniform:
    """Any real number from low to high, equal factors equally likely."""
    return LogUniform(low=low, high=high)


def integers(low: int, high: int, step: int = 1, log: bool = False) -> Integers:
    """Whole numbers from low to high, both included."""
    return Integers(low=low, high=high, step=step, log=log)


def choice(*options: Any) -> Choice:
    """One of the options."""
    return Choice(options=options)


def _ordered(of: Distribution, low: float, high: float) -> None:
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"{type(of).__name__}: low={low} must be below high={high}, both finite")
