"""A sum of many terms: too much for one step, easy in many."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lm.config import ConfigError, config
from lm.data.synthetic.task import MARK, Examples, Task


@config
class ModularSum(Task):
    """MARK d_1 .. d_terms = answer: the sum modulo `modulus`. Terms are uniform and independent.

    form "direct": only the sum. "scratchpad": the sums of the first term, the first two and so on to all, each an
    answer; the last is the answer proper. The numbers 0 .. modulus - 1 are tokens 1 .. modulus in order.
    """

    terms: int = 6
    modulus: int = 10
    form: Literal["direct", "scratchpad"] = "direct"

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise ConfigError(f"ModularSum.terms={self.terms} must be at least 1")
        if self.modulus < 2:
            raise ConfigError(f"ModularSum.modulus={self.modulus} must be at least 2")

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*(f" {number}" for number in range(self.modulus)), "=")

    @property
    def length(self) -> int:
        return self.terms + 1 + (1 if self.form == "direct" else self.terms)

    @property
    def draws(self) -> int:
        return self.terms

    @property
    def answer_tokens(self) -> int:
        return 1

    def make(self, u: np.ndarray) -> Examples:
        terms = (u * self.modulus).astype(np.int64)
        sums = np.cumsum(terms, axis=1) % self.modulus
        told = sums[:, -1:] if self.form == "direct" else sums
        tokens = np.full((len(u), self.length + 1), MARK)
        tokens[:, 1 : self.terms + 1], tokens[:, self.terms + 1] = 1 + terms, 1 + self.modulus
        tokens[:, self.terms + 2 :] = 1 + told
        answers = np.broadcast_to(np.arange(self.length + 1) > self.terms + 1, tokens.shape)
        return Examples(tokens, answers.copy())
