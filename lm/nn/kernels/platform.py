"""The one place that asks which backend runs; every fast form is chosen through it."""

from __future__ import annotations

from typing import Literal, TypeVar

import jax
from jax import lax

Platform = Literal["cpu", "gpu", "tpu"]
T = TypeVar("T")


def platform() -> Platform:
    """The backend that compiled programs run on. One we don't know gets the portable forms of the CPU."""
    backend = jax.default_backend()
    return backend if backend in ("gpu", "tpu") else "cpu"  # type: ignore[return-value]


def settled(arrays: T) -> T:
    """Arrays about to enter a matrix product, stored first where that is faster.

    XLA:CPU otherwise fuses what made them into a strided, transposed copy instead of calling its native product.
    """
    return lax.optimization_barrier(arrays) if platform() == "cpu" else arrays
