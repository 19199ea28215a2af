"""Learning-rate schedules: the share of the peak rate that update number `step` of `steps` takes.

Every number may be a tracer, so runs that differ in warm-up, length or final rate share one executable.

Warm-up is linear: update n (counted from 0) takes (n + 1) / (warmup + 1) of the peak, so the first update is
never empty and update `warmup` is the first at the full rate.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import jax.numpy as jnp

from lm.config import ConfigError, Count, Scalar, config
from lm.shapes import Array, Float


@config
class Schedule:
    """How the learning rate moves over a run. `warmup` is in updates."""

    warmup: Count = 0

    def __call__(self, step: Any, steps: Any) -> Float[Array, ""]:
        """The multiplier in [0, 1], float32, of update `step` (0 is the first) in a run of `steps` updates."""
        step, steps = jnp.asarray(step, jnp.float32), jnp.asarray(steps, jnp.float32)
        rise = jnp.minimum(1.0, (step + 1) / (self.warmup + 1))
        return jnp.clip(rise * self.shape(jnp.maximum(step, self.warmup), steps), 0.0, 1.0)

    def shape(self, step: Array, steps: Array) -> Array:
        """The multiplier after warm-up; `step` is at least `warmup`."""
        raise NotImplementedError

    def check(self, steps: int) -> None:
        """Raises ConfigError if this schedule can't be followed in a run of `steps` updates."""
        if self.warmup >= steps:
            raise ConfigError(
                f"{type(self).__name__}(warmup={self.warmup}) leaves nothing of a run of {steps} steps; "
                f"set warmup below {steps}"
            )


@config
class Constant(Schedule):
    """The full rate after warm-up."""

    def __post_init__(self) -> None:
        _check(self)

    def shape(self, step: Array, steps: Array) -> Array:
        return jnp.ones_like(step)


@config
class Linear(Schedule):
    """A straight line from the full rate at the end of warm-up to `final` of it at the end of the run."""

    final: Scalar = 0.0

    def __post_init__(self) -> None:
        _check(self, self.final)

    def shape(self, step: Array, steps: Array) -> Array:
        return 1.0 - (1.0 - self.final) * _progress(step, self.warmup, steps)


@config
class Cosine(Schedule):
    """Half a cosine from the full rate to `final` of it at the end of the run (Loshchilov & Hutter 2017, eq. 5).

    `final` = 0.1 is the choice of Hoffmann et al. 2022 (Chinchilla).
    """

    final: Scalar = 0.1

    def __post_init__(self) -> None:
        _check(self, self.final)

    def shape(self, step: Array, steps: Array) -> Array:
        t = _progress(step, self.warmup, steps)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + jnp.cos(jnp.pi * t))


@config
class WSD(Schedule):
    """Warm-up, stable, decay (Hu et al. 2024, MiniCPM): the full rate, then a fall over the last `decay` of the run.

    decay: share of all updates. final: rate at the end of the run, as a share of the peak.
    fall: "linear", or "sqrt" for 1 - sqrt(t) (Hägele et al. 2024, section 3).
    """

    decay: Scalar = 0.2
    final: Scalar = 0.0
    fall: Literal["linear", "sqrt"] = "linear"

    def __post_init__(self) -> None:
        _check(self, self.final)
        if not 0 < self.decay <= 1:
            raise ConfigError(f"WSD: decay={self.decay} is a share of the run; it must be above 0 and at most 1")

    def shape(self, step: Array, steps: Array) -> Array:
        t = _progress(step, (1.0 - self.decay) * steps, steps)
        return 1.0 - (1.0 - self.final) * (jnp.sqrt(t) if self.fall == "sqrt" else t)

    def check(self, steps: int) -> None:
        if self.warmup + self.decay * steps > steps:
            raise ConfigError(
                f"WSD: warmup={self.warmup} and decay={self.decay} (of {steps} steps: {math.ceil(self.decay * steps)}) "
                f"overlap; together they must fit in {steps} steps"
            )


@config
class InverseSqrt(Schedule):
    """The rate falls as 1 / sqrt(step) from the end of warm-up on (Vaswani et al. 2017, eq. 3, peak scaled to 1).

    It doesn't depend on the length of the run, so a run can be made longer.
    """

    warmup: Count = 100

    def __post_init__(self) -> None:
        _check(self)

    def shape(self, step: Array, steps: Array) -> Array:
        return jnp.sqrt((self.warmup + 1) / (step + 1))


def _progress(step: Any, start: Any, end: Any) -> Array:
    """How far `step` is from `start` to `end`, in [0, 1]."""
    return jnp.clip((step - start) / jnp.maximum(end - start, 1e-6), 0.0, 1.0)


def _check(schedule: Schedule, final: float = 0.0) -> None:
    name = type(schedule).__name__
    if schedule.warmup < 0:
        raise ConfigError(f"{name}: warmup={schedule.warmup} is a number of steps, 0 or more")
    if not 0 <= final <= 1:
        raise ConfigError(f"{name}: final={final} is a share of the peak learning rate; it must be in [0, 1]")
