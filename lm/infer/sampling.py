"""Choosing the next token from logits."""

from __future__ import annotations

import abc

import jax
import jax.numpy as jnp

from lm.config import ConfigError, config
from lm.shapes import Array, Float, Int


class Sampler(abc.ABC):
    """`sampler(logits [B V], key) -> tokens [B]`."""

    @abc.abstractmethod
    def __call__(self, logits: Float[Array, "B V"], key: jax.Array) -> Int[Array, "B"]: ...


@config
class Greedy(Sampler):
    """The likeliest token."""

    def __call__(self, logits: Float[Array, "B V"], key: jax.Array) -> Int[Array, "B"]:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)


@config
class Sample(Sampler):
    """Draws from softmax(logits / temperature), from the `top_k` likeliest tokens and, of those, from the smallest
    set that holds at least `top_p` of the probability (nucleus sampling, Holtzman et al. 2020). None: no limit."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"temperature={self.temperature} must be positive; for the likeliest token use Greedy()")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k} must be at least 1, or None")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} must be in (0, 1], or None")

    def __call__(self, logits: Float[Array, "B V"], key: jax.Array) -> Int[Array, "B"]:
        return jax.random.categorical(key, self.limited(logits)).astype(jnp.int32)

    def limited(self, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """The logits drawn from: tempered, -inf where a token is out of the limits."""
        logits = logits.astype(jnp.float32) / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = jax.lax.top_k(logits, self.top_k)[0][:, -1:]
            logits = jnp.where(logits < least, -jnp.inf, logits)
        if self.top_p is not None and self.top_p < 1:
            order = jnp.argsort(-logits, axis=-1)
            p = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
            kept = jnp.cumsum(p, axis=-1) - p < self.top_p  # the mass before a token decides, so one is always kept
            logits = jnp.where(jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1), logits, -jnp.inf)
        return logits
