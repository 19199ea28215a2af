"""The one place that asks which backend runs; every fast form is chosen through it."""

from __future__ import annotations

from typing import Literal

import jax

Platform = Literal["cpu", "gpu", "tpu"]


def platform() -> Platform:
    """The backend that compiled programs run on. One we don't know gets the portable forms of the CPU."""
    backend = jax.default_backend()
    return backend if backend in ("gpu", "tpu") else "cpu"  # type: ignore[return-value]
