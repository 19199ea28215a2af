"""Many small skills of unequal frequency, each learned at once: what a smooth power law may be made of."""

from __future__ import annotations

import functools
import math

import numpy as np

from lm.config import ConfigError, config
from lm.data.synthetic.task import MARK, Examples, Task, uniforms

DRAWN = (1 << 63) + 1  # the seed of what is drawn once: no run has it


@config
class SparseParity(Task):
    """Multitask sparse parity (Michaud et al. 2023, "The quantization model of neural scaling"):
    MARK b_1 .. b_bits task answer.

    The bits are uniform. The answer is the parity of the `subset` bits that are the task's own: 1 where an odd number
    of them is 1. Each of the `tasks` has another subset, drawn once for all (`subsets`). Task i, from 0 on, has a
    probability proportional to (i + 1)^-(skew + 1); it is the example's kind.
    """

    tasks: int = 8
    bits: int = 16
    subset: int = 3
    skew: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.subset <= self.bits:
            raise ConfigError(f"SparseParity.subset={self.subset} must be from 1 to its bits={self.bits}")
        if not 1 <= self.tasks <= math.comb(self.bits, self.subset):
            raise ConfigError(
                f"SparseParity.tasks={self.tasks} must be from 1 to {math.comb(self.bits, self.subset):,}, "
                f"as there are so many different {self.subset} of {self.bits} bits"
            )
        if self.skew < -1:
            raise ConfigError(f"SparseParity.skew={self.skew:g} must be at least -1, where tasks are equally frequent")

    @property
    def symbols(self) -> tuple[str, ...]:
        return ("0", "1", *(f" t{task}" for task in range(self.tasks)))

    @property
    def length(self) -> int:
        return self.bits + 2

    @property
    def draws(self) -> int:
        return self.bits + 1

    @property
    def frequencies(self) -> np.ndarray:
        """The probability of each task [tasks]."""
        weights = np.arange(1, self.tasks + 1) ** -(self.skew + 1)
        return weights / weights.sum()

    @property
    def subsets(self) -> np.ndarray:
        """The bits of each task, numbers from 0 on in rising order [tasks, subset]. Of more tasks the first have the
        same ones."""
        return _subsets(self.tasks, self.bits, self.subset)

    def make(self, u: np.ndarray) -> Examples:
        cumulative = np.cumsum(self.frequencies)
        task = np.searchsorted(cumulative, u[:, 0] * cumulative[-1], side="right")
        bits = (u[:, 1:] >= 0.5).astype(np.int64)
        parity = np.take_along_axis(bits, self.subsets[task], axis=1).sum(1) % 2
        tokens = np.full((len(u), self.bits + 3), MARK)
        tokens[:, 1:-2], tokens[:, -2], tokens[:, -1] = 1 + bits, 3 + task, 1 + parity
        answers = np.zeros(tokens.shape, bool)
        answers[:, -1] = True
        return Examples(tokens, answers)

    def kinds(self, examples: Examples) -> np.ndarray:
        return examples.tokens[:, -2] - 3


@functools.lru_cache(maxsize=16)
def _subsets(tasks: int, bits: int, subset: int) -> np.ndarray:
    """The first `tasks` different ones of a sequence of random subsets."""
    count = 2 * tasks
    while True:
        chosen = np.sort(np.argsort(uniforms(DRAWN, 0, 0, count, bits), axis=1, kind="stable")[:, :subset], axis=1)
        different = np.array(list(dict.fromkeys(map(tuple, chosen.tolist()))))
        if len(different) >= tasks:
            return different[:tasks]
        count *= 2
