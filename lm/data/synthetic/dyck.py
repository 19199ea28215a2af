"""Brackets that match, up to a depth: a language whose entropy is known symbol by symbol."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lm.config import ConfigError, config
from lm.data.synthetic.task import MARK, Examples, Task

BRACKETS = "()[]{}<>"


@config
class Dyck(Task):
    """MARK and `length` symbols: the beginning of a text of matching brackets, nested at most `depth` deep.

    Where nothing is open a bracket is opened, where `depth` are one is closed, and otherwise one is opened with
    probability `open`. Which of the `brackets` is opened is uniform; only the one opened last can be closed
    (Dyck-(k, m) of Hewitt et al. 2020, "RNNs can generate bounded hierarchical languages with optimal memory").

    All symbols are answers.
    """

    brackets: int = 3
    depth: int = 6
    length: int = 48  # type: ignore[assignment]
    open: float = 0.5

    def __post_init__(self) -> None:
        for field in ("brackets", "depth", "length"):
            if getattr(self, field) < 1:
                raise ConfigError(f"Dyck.{field}={getattr(self, field)} must be at least 1")
        if not 0 < self.open < 1:
            raise ConfigError(
                f"Dyck.open={self.open:g} is a probability above 0 and below 1: both ways must be possible"
            )

    @property
    def symbols(self) -> tuple[str, ...]:
        """What opens, then what closes. Beyond four kinds they are told apart by numbers."""
        if 2 * self.brackets <= len(BRACKETS):
            return (*BRACKETS[: 2 * self.brackets : 2], *BRACKETS[1 : 2 * self.brackets : 2])
        return (*(f" ({kind}" for kind in range(self.brackets)), *(f" {kind})" for kind in range(self.brackets)))

    @property
    def draws(self) -> int:
        return 2 * self.length

    def make(self, u: np.ndarray) -> Examples:
        wanted = u[:, : self.length] < self.open
        kinds = (u[:, self.length :] * self.brackets).astype(np.int64)
        rows, depth = np.arange(len(u)), np.zeros(len(u), np.int64)
        stack = np.zeros((len(u), self.depth), np.int64)
        tokens = np.full((len(u), self.length + 1), MARK)
        for place in range(self.length):
            opens = (wanted[:, place] | (depth == 0)) & (depth < self.depth)
            level = np.where(opens, depth, depth - 1)  # of the bracket that is opened or closed
            kind = np.where(opens, kinds[:, place], stack[rows, level])
            stack[rows, level] = kind
            tokens[:, place + 1] = 1 + kind + np.where(opens, 0, self.brackets)
            depth = level + opens
        return Examples(tokens, np.broadcast_to(np.arange(self.length + 1) > 0, tokens.shape).copy())

    def golds(self, examples: Examples) -> Mapping[str, np.ndarray]:
        """source: what the language itself says of each symbol, given those before it: no model has a lower mean."""
        opens = examples.tokens[:, 1:] <= self.brackets
        steps = np.where(opens, 1, -1)
        depth = np.cumsum(steps, axis=1) - steps  # before the symbol
        opening = np.where(depth == 0, 1.0, np.where(depth == self.depth, 0.0, self.open))
        return {"source": -np.log(np.where(opens, opening / self.brackets, 1 - opening))}
