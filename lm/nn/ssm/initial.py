"""Initial values of decays: log_decay = -exp(A_log) softplus(dt + dt_bias), from hardly forgetting to fast."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

DT = (1e-3, 1e-1)  # the range of time steps (Gu and Dao 2023, section 3.6)
A = (1.0, 16.0)  # the range of A of a head (Dao and Gu 2024, the authors' code)


def dt_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """softplus(dt_bias) is log-uniform in the range."""
    dt = jnp.exp(jax.random.uniform(key, shape, dtype, *map(math.log, DT)))
    return dt + jnp.log(-jnp.expm1(-dt))


def a_log_of_heads(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """A is uniform in the range."""
    return jnp.log(jax.random.uniform(key, shape, dtype, *A))


def a_log_of_states(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """A = 1, 2, ..., N in every channel [D N] (S4D-real, Gu et al. 2022, equation 9)."""
    del key
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[-1] + 1, dtype=dtype)), shape)
