"""Which keys a query may see, as one value that every attention kernel obeys."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.config import ConfigError, config
from lm.nn.sparse import Sparse
from lm.shapes import Array, Bool, Int


@config
class Mask:
    """The static part of an attention mask; positions and segments are its inputs.

    A query sees keys of its own document alone. The document of a token is |segment|: a negative segment says that the
    token is of its document's prefix, which only masks with `prefix` ask.

    causal: no later position. prefix: but the prefix of the document whatever the order, so its tokens see each other
    both ways (prefix LM, Raffel et al. 2020, figure 4).
    window, sinks, pattern: what is seen is limited to all that these name together; with none of them it isn't.
    window: the last `window` positions, itself included (keys after the query: as many to that side).
    sinks: the first `sinks` positions of a document are seen by all and see all. In a causal mask these are the
    attention sinks of Xiao et al. 2023, otherwise the global tokens of Longformer and BigBird.
    """

    causal: bool = True
    window: int | None = None
    prefix: bool = False
    sinks: int = 0
    pattern: Sparse | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ConfigError(f"window={self.window} must be at least 1 (a query sees itself), or None for all")
        if self.prefix and not self.causal:
            raise ConfigError("prefix=True lifts the causal order for the prefix, and causal=False has none to lift")
        if self.sinks < 0:
            raise ConfigError(f"sinks={self.sinks} must be a number of positions, 0 for none")
        if self.sinks and self.window is None and self.pattern is None:
            raise ConfigError(f"sinks={self.sinks} are what is seen beyond a window or a pattern; give one of them")

    @property
    def sees_later(self) -> bool:
        """True if there may be keys that a query sees and that come after it."""
        return self.prefix or not self.causal

    @property
    def reach(self) -> int | None:
        """The largest distance at which a key is seen; None: there is no such bound."""
        window = -1 if self.window is None else self.window - 1
        far = -1 if self.pattern is None else self.pattern.reach()
        limited = self.window is not None or self.pattern is not None
        return max(window, far) if limited and far is not None and not self.sinks else None

    def kept(self, length: int) -> int:
        """How many of `length` tokens a cache keeps: those that the last of them may see."""
        return length if self.reach is None else min(length, self.reach + 1)

    def slots(self, length: int) -> tuple[int, bool]:
        """The size of a cache for `length` tokens, and whether it is a ring. Raises ConfigError if none can serve.

        A prefix must come in one call: its first tokens see the last.
        """
        if not self.causal:
            raise ConfigError(
                "attention with causal=False can't decode from a cache: each token changes the earlier ones"
            )
        return self.kept(length), self.reach is not None

    def allowed(
        self,
        q_positions: Int[Array, "B L"],
        k_positions: Int[Array, "B S"],
        q_segments: Int[Array, "B L"],
        k_segments: Int[Array, "B S"],
    ) -> Bool[Array, "B L S"]:
        """True where query l may see key s."""
        q, k = q_positions[:, :, None], k_positions[:, None, :]
        allowed = abs(q_segments)[:, :, None] == abs(k_segments)[:, None, :]
        if self.causal:
            ordered = q >= k
            allowed &= ordered | (k_segments < 0)[:, None, :] if self.prefix else ordered
        return allowed & self._near(q, k)

    def _near(self, q: Any, k: Any) -> Any:
        """True where window, sinks and pattern let a query see a key."""
        near = []
        if self.window is not None:
            near.append(abs(q - k) < self.window)
        if self.sinks:
            near.append((q < self.sinks) | (k < self.sinks))
        if self.pattern is not None:
            near.append(self.pattern.sees(q, k))
        return functools.reduce(lambda a, b: a | b, near) if near else True

    def pairs(self, length: int) -> int:
        """How many (query, key) pairs are allowed in one document of `length` tokens that has no prefix, exactly.

        Closed where only a window limits sight; with sinks or a pattern all pairs are looked at, once.
        """
        if self.sinks or self.pattern is not None:
            return _counted(self, length)
        reach = self.kept(length)
        triangle = reach * length - reach * (reach - 1) // 2  # sum over queries of min(position + 1, reach)
        return triangle if self.causal else 2 * triangle - length


@functools.lru_cache(maxsize=256)
def _counted(mask: Mask, length: int) -> int:
    at, rows, total = np.arange(length, dtype=np.int32), max(1, 2**22 // max(length, 1)), 0
    for start in range(0, length, rows):
        q, k = at[start : start + rows, None], at[None]
        total += int(np.count_nonzero(mask._near(q, k) & ((q >= k) | (not mask.causal))))
    return total


def positions_of(segments: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """Positions that restart at each change of document: 0, 1, 2, ... inside it, its prefix included."""
    index, document = jnp.arange(segments.shape[1]), abs(segments)
    starts = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), document[:, 1:] != document[:, :-1]], axis=1)
    return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1)
