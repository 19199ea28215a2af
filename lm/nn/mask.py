"""Which keys a query may see, as one value that every attention kernel obeys."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lm.config import ConfigError, config
from lm.shapes import Array, Bool, Int


@config
class Mask:
    """The static part of an attention mask; positions and segments are its inputs.

    causal: a query sees no later position. window: it sees only the last `window` positions, itself included
    (with causal=False, `window` positions to either side, itself included).
    """

    causal: bool = True
    window: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ConfigError(f"window={self.window} must be at least 1 (a query sees itself), or None for all")

    def allowed(
        self,
        q_positions: Int[Array, "B L"],
        k_positions: Int[Array, "B S"],
        q_segments: Int[Array, "B L"],
        k_segments: Int[Array, "B S"],
    ) -> Bool[Array, "B L S"]:
        """True where query l may see key s: same document, not later, inside the window."""
        distance = q_positions[:, :, None] - k_positions[:, None, :]
        allowed = q_segments[:, :, None] == k_segments[:, None, :]
        if self.causal:
            allowed &= distance >= 0
        if self.window is not None:
            allowed &= jax.lax.abs(distance) < self.window
        return allowed

    def pairs(self, length: int) -> int:
        """How many (query, key) pairs are allowed in one document of `length` tokens, exactly."""
        reach = length if self.window is None else min(self.window, length)
        triangle = reach * length - reach * (reach - 1) // 2  # sum over queries of min(position + 1, reach)
        return triangle if self.causal else 2 * triangle - length


def positions_of(segments: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """Positions that restart at each change of segment: 0, 1, 2, ... inside a document."""
    index = jnp.arange(segments.shape[1])
    starts = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
    return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1)
