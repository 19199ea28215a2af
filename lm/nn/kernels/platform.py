"""The one place that asks which backend runs; every fast form is chosen through it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal, TypeVar

import jax
from jax import lax

Platform = Literal["cpu", "gpu", "tpu"]
T = TypeVar("T")

_plain: ContextVar[bool] = ContextVar("plain", default=False)


def platform() -> Platform:
    """The backend that compiled programs run on. One we don't know gets the portable forms of the CPU."""
    backend = jax.default_backend()
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


def settled(arrays: T) -> T:
    """Arrays about to enter a matrix product, stored first where that is faster.

    XLA:CPU otherwise fuses what made them into a strided, transposed copy instead of calling its native product.
    """
    return lax.optimization_barrier(arrays) if fast("cpu") else arrays
