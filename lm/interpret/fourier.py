"""Modular arithmetic by rotation: whether the embeddings of numbers lie on a few circles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lm.config import ConfigError, config
from lm.data import Source
from lm.data.synthetic.modular import ModularArithmetic
from lm.errors import UserError
from lm.evals.forward import of_task
from lm.train.measure import Found, Look, Measure

if TYPE_CHECKING:
    from lm.train.step import Program


def spectrum(table: np.ndarray) -> np.ndarray:
    """The power of a table [n, D] of vectors in the frequencies 1 .. n // 2 of its n rows, summed over D: of a
    frequency together with its negative, so that all add up to n times the rows' variance, summed over D (Parseval)."""
    n = len(table)
    power = (np.abs(np.fft.rfft(np.asarray(table, np.float64), axis=0)) ** 2).sum(1)[1:] * (2 / n)
    if n % 2 == 0:
        power[-1] /= 2  # the frequency n / 2 is its own negative
    return power


def concentration(table: np.ndarray, top: int) -> float:
    """The share of a table's power (`spectrum`) that is in its `top` strongest frequencies: near 1 once a network has
    found a few key frequencies to compute with (Nanda et al. 2023, "Progress measures for grokking via mechanistic
    interpretability")."""
    power = np.sort(spectrum(table))
    return float(power[-top:].sum() / power.sum())


def gini(values: np.ndarray) -> float:
    """The Gini coefficient of numbers [n] from 0 on: 0 where all are equal, 1 - 1/n where one of them has everything
    (Hurley and Rickard 2009, "Comparing measures of sparsity")."""
    n = len(values)
    ranks = np.arange(1, n + 1)
    return float(((2 * ranks - n - 1) * np.sort(values)).sum() / (n * values.sum()))


def residues(modulus: int, operation: str) -> np.ndarray:
    """Residues in the order in which one step of the operation's group is one step: 0, 1, 2, .. for + and -; for * and
    / the powers 1, g, g^2, .. of the least primitive root g, which are all but 0.

    Raises UserError for * and / of a modulus that isn't prime."""
    if operation in "+-":
        return np.arange(modulus)
    for g in range(1, modulus):
        powers = [pow(g, k, modulus) for k in range(modulus - 1)]
        if sorted(powers) == list(range(1, modulus)):
            return np.array(powers)
    raise UserError(
        f"modulo {modulus} the numbers 1 .. {modulus - 1} are no group of '{operation}'; take a prime modulus"
    )


@config
class Fourier(Measure):
    """The Fourier spectrum of the embeddings of the numbers 0 .. p - 1, of runs on ModularArithmetic.

    concentration: the share of the power in its `top` strongest frequencies. gini: of the frequencies' norms, the roots
    of their powers, as Nanda et al. (2023) have it but with sine and cosine together. In full: the spectrum.
    Multiplication and division are additions of discrete logarithms, so their numbers are in the order of those
    (`residues`), without 0.
    """

    name: str = "fourier"
    top: int = 5

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ConfigError(f"top={self.top} must be at least 1")

    def prepare(self, program: Program, data: Source) -> Look:
        task = of_task(data, "Fourier").task
        if not isinstance(task, ModularArithmetic):
            raise UserError(f"measure {self.name} is for ModularArithmetic, not for {task}")
        order = residues(task.modulus, task.operation)
        if self.top >= len(order) // 2:
            raise UserError(
                f"measure {self.name}: top={self.top} are all of the {len(order) // 2} frequencies that "
                f"{len(order)} numbers have; lower top"
            )
        tokens = task.numbers[order]
        rows_of = program.apply(lambda model, tokens: model.embedding[...][tokens])

        def look(params: Any) -> Found:
            table = np.asarray(rows_of(params, tokens), np.float64)
            power = spectrum(table)
            numbers = {"concentration": concentration(table, self.top), "gini": gini(np.sqrt(power))}
            return Found(numbers, {"spectrum": power.tolist()})

        return look
