"""The one place that asks which backend runs; every fast form is chosen through it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal, TypeVar

import jax
from jax import lax

from lm import sharding

Platform = Literal["cpu", "gpu", "tpu"]
T = TypeVar("T")

_plain: ContextVar[bool] = ContextVar("plain", default=False)


def platform() -> Platform:
    """The backend that compiled programs run on: that of the devices of the layout in scope, which may be of a machine
    that isn't here, else JAX's own. One we don't know gets the portable forms of the CPU."""
    backend = sharding.platform_in_scope() or jax.default_backend()
    return backend if backend in ("gpu", "tpu") else "cpu"  # type: ignore[return-value]


@contextlib.contextmanager
def plain_forms(on: bool = True) -> Iterator[None]:
    """A scope in which programs are traced with every layer's definition instead of a fast form of it."""
    token = _plain.set(on)
    try:
        yield
    finally:
        _plain.reset(token)


def fast(*platforms: Platform) -> bool:
    """True where a form that pays off on these platforms is to be used."""
    return platform() in platforms and not _plain.get()


def flat() -> bool:
    """Whether rows and their tokens may be taken as one axis. Where tokens are split over devices they can't be: the
    one axis couldn't be split so, and every device would gather whole rows."""
    return (where := sharding.in_scope()) is None or not where.over("length")


def settled(arrays: T) -> T:
    """Arrays about to enter a matrix product, stored first where that is faster.

    XLA:CPU otherwise fuses what made them into a strided, transposed copy instead of calling its native product.
    """
    return lax.optimization_barrier(arrays) if fast("cpu") else arrays
