"""A sequence that repeats itself: what an induction head predicts, and nothing else does."""

from __future__ import annotations

import numpy as np

from lm.config import ConfigError, config
from lm.data.synthetic.task import MARK, Examples, Task


@config
class RepeatedSequence(Task):
    """MARK and `length` symbols: a block of different ones, repeated until the row is full (Olsson et al. 2022,
    "In-context learning and induction heads").

    The block has r symbols of `alphabet`, r uniform from `shortest` to `longest`. It varies so that a place of the row
    doesn't tell where a symbol stood before. Answers are the symbols that the repetition determines: all from the
    second symbol of the second block on (the first one tells that the block is over).
    """

    alphabet: int = 64
    length: int = 64  # type: ignore[assignment]
    shortest: int = 8
    longest: int = 24

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest <= self.alphabet:
            raise ConfigError(
                f"RepeatedSequence: shortest={self.shortest}, longest={self.longest} must be lengths of a block from 1 "
                f"to alphabet={self.alphabet}, as its symbols are all different, the longest at least the shortest"
            )
        if self.length < self.longest + 2:
            raise ConfigError(
                f"RepeatedSequence.length={self.length} leaves nothing of a block of longest={self.longest} to repeat; "
                f"it must be at least {self.longest + 2}"
            )

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(f" w{number}" for number in range(self.alphabet))

    @property
    def draws(self) -> int:
        return 1 + self.alphabet

    def make(self, u: np.ndarray) -> Examples:
        size = self.shortest + (u[:, :1] * (self.longest + 1 - self.shortest)).astype(np.int64)
        block = 1 + np.argsort(u[:, 1:], axis=1, kind="stable")
        places = np.arange(self.length + 1)
        tokens = np.full((len(u), self.length + 1), MARK)
        tokens[:, 1:] = np.take_along_axis(block, places[:-1] % size, axis=1)
        return Examples(tokens, places >= size + 2)
