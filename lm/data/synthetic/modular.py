"""Arithmetic modulo a number: small enough to be learned by heart, regular enough to be understood."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from lm.config import ConfigError, config
from lm.data.synthetic.task import MARK, Examples, Task


@config
class ModularArithmetic(Task):
    """MARK a op b = c, with c = a op b modulo `modulus` (Power et al. 2022, "Grokking").

    a and b are uniform and independent. a / b is a times the inverse of b, for a prime modulus; b is then never 0.
    a + b and b + a are different questions, of which one may be trained on and the other held out.

    The numbers 0 .. modulus - 1 are tokens 1 .. modulus in order (`numbers`), so that a Fourier analysis reads its
    residues from these rows of the embedding.
    """

    modulus: int = 59
    operation: Literal["+", "-", "*", "/"] = "+"

    def __post_init__(self) -> None:
        p = self.modulus
        if p < 2:
            raise ConfigError(f"ModularArithmetic.modulus={p} must be at least 2")
        if self.operation == "/" and (divisor := _divisor(p)):
            raise ConfigError(
                f"ModularArithmetic.modulus={p} is divided by {divisor}, which has no inverse; "
                "take a prime for operation='/'"
            )

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*(f" {number}" for number in range(self.modulus)), self.operation, "=")

    @property
    def numbers(self) -> np.ndarray:
        """The tokens of 0, 1, .. modulus - 1 [modulus]."""
        return 1 + np.arange(self.modulus)

    @property
    def length(self) -> int:
        return 5

    @property
    def draws(self) -> int:
        return 2

    def make(self, u: np.ndarray) -> Examples:
        p = self.modulus
        a, b = (u * p).astype(np.int64).T
        match self.operation:
            case "+":
                c = (a + b) % p
            case "-":
                c = (a - b) % p
            case "*":
                c = a * b % p
            case "/":
                # the result is drawn, and a made from it: for each b the one is uniform as the other is
                b = 1 + (u[:, 1] * (p - 1)).astype(np.int64)
                a, c = a * b % p, a
        tokens = np.full((len(u), 6), MARK)
        tokens[:, 2], tokens[:, 4] = p + 1, p + 2
        tokens[:, [1, 3, 5]] = self.numbers[np.stack([a, b, c], axis=1)]
        answers = np.zeros(tokens.shape, bool)
        answers[:, 5] = True
        return Examples(tokens, answers)


def _divisor(number: int) -> int | None:
    """The least divisor of a number, other than 1 and itself; None of a prime."""
    return next((d for d in range(2, math.isqrt(number) + 1) if number % d == 0), None)
