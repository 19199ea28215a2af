"""Sparse patterns of attention: which far keys a query sees, from the positions in their document alone."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from lm.config import ConfigError, config


class Sparse(abc.ABC):
    """A pattern, one alternative of `Mask.pattern`. Every query sees at least itself in it."""

    @abc.abstractmethod
    def sees(self, q: Any, k: Any) -> Any:
        """True where a query at position q sees a key at position k, before causality. NumPy or JAX, broadcast."""

    def reach(self) -> int | None:
        """The largest distance at which something is seen; None: there is no such bound."""
        return None


@config
class Strided(Sparse):
    """Every `stride`-th position back from the query (Child et al. 2019, section 4.3).

    count: only the nearest `count` of them, itself included: the dilated window of Longformer (Beltagy et al. 2020).
    """

    stride: int
    count: int | None = None

    def __post_init__(self) -> None:
        _at_least_one(self, "stride", "count")

    def sees(self, q: Any, k: Any) -> Any:
        distance = abs(q - k)
        seen = distance % self.stride == 0
        return seen if self.count is None else seen & (distance < self.stride * self.count)

    def reach(self) -> int | None:
        return None if self.count is None else self.stride * (self.count - 1)


@config
class Fixed(Sparse):
    """The query's own block of `stride` positions, and the last `summary` positions of every block (Child et al. 2019,
    section 4.3)."""

    stride: int
    summary: int = 1

    def __post_init__(self) -> None:
        _at_least_one(self, "stride", "summary")
        if self.summary > self.stride:
            raise ConfigError(f"Fixed: summary={self.summary} positions of a block of stride={self.stride}; lower it")

    def sees(self, q: Any, k: Any) -> Any:
        return (q // self.stride == k // self.stride) | (k % self.stride >= self.stride - self.summary)


@config
class BlockSparse(Sparse):
    """Blocks of `size` positions: a query's block sees itself, `near` blocks to either side and `random` more.

    With `Mask.sinks` as the global tokens this is BigBird (Zaheer et al. 2020, section 2). Each block draws its random
    ones by `seed` from those before its near ones, and both see each other, so the number of pairs grows with the
    length and not its square.
    """

    size: int
    near: int = 1
    random: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least_one(self, "size")
        if self.near < 0 or self.random < 0:
            raise ConfigError(
                f"BlockSparse: near={self.near} and random={self.random} are numbers of blocks, at least 0"
            )

    def sees(self, q: Any, k: Any) -> Any:
        q, k = q // self.size, k // self.size
        seen = abs(q - k) <= self.near
        for draw in range(self.random):
            seen |= (self._drawn(q, draw) == k) | (self._drawn(k, draw) == q)
        return seen

    def _drawn(self, block: Any, draw: int) -> Any:
        """A block before the near ones of each; where there is none the first, which is near."""
        before = block - self.near
        mixed = _mixed(_mixed(block.astype(np.uint32) ^ np.uint32(draw << 16)) ^ np.uint32(self.seed % 2**32))
        return (mixed >> np.uint32(1)).astype(block.dtype) % (before * (before > 0) + (before <= 0))

    def reach(self) -> int | None:
        return None if self.random else (self.near + 1) * self.size - 1


def _mixed(x: Any) -> Any:
    """A bijection of 32-bit numbers that changes half of the bits with any one of them ("lowbias32", Wellons 2018)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _at_least_one(spec: Any, *fields: str) -> None:
    for name in fields:
        value = getattr(spec, name)
        if value is not None and value < 1:
            raise ConfigError(f"{type(spec).__name__}: {name}={value} must be at least 1")
