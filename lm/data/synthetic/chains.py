"""Markov chains that are each row's own: what can be known of them is in the row."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaincinv

from lm.config import ConfigError, config
from lm.data.synthetic.markov import ALPHABET
from lm.data.synthetic.task import MARK, Examples, Task


@config
class MarkovChains(Task):
    """MARK and `length` symbols of a Markov chain (Edelman et al. 2024, "The evolution of statistical induction
    heads: in-context learning Markov chains").

    Each row has a transition matrix of its own, whose rows are drawn from the Dirichlet distribution with
    `concentration` for each of the `states`. The first symbol is uniform.

    All symbols are answers.
    """

    states: int = 3
    length: int = 100  # type: ignore[assignment]
    concentration: float = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.states <= len(ALPHABET):
            raise ConfigError(f"MarkovChains.states={self.states} must be from 2 to {len(ALPHABET)}")
        if self.length < 1:
            raise ConfigError(f"MarkovChains.length={self.length} must be at least 1")
        # below, variates of 64 bits are all 0 in too many rows
        if self.concentration < 0.01:
            raise ConfigError(f"MarkovChains.concentration={self.concentration:g} must be at least 0.01")

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(ALPHABET[: self.states])

    @property
    def draws(self) -> int:
        return self.states**2 + self.length

    def make(self, u: np.ndarray) -> Examples:
        cumulative = np.cumsum(self.matrices(u), axis=2)
        rows, chosen = np.arange(len(u)), u[:, self.states**2 :]
        tokens = np.full((len(u), self.length + 1), MARK)
        state = (chosen[:, 0] * self.states).astype(np.int64)
        tokens[:, 1] = 1 + state
        for place in range(1, self.length):
            now = cumulative[rows, state]
            state = (chosen[:, place, None] * now[:, -1:] >= now).sum(1)
            tokens[:, place + 1] = 1 + state
        return Examples(tokens, np.broadcast_to(np.arange(self.length + 1) > 0, tokens.shape).copy())

    def matrices(self, u: np.ndarray) -> np.ndarray:
        """The transition matrices that examples have [n, states, states], from their random numbers [n, draws]: row i
        of each has the probabilities of what follows state i. They can't be told from tokens."""
        ours = u[:, : self.states**2].reshape(-1, self.states, self.states)
        # Gamma variates, divided by their sum; those of 1 have a closed form
        gamma = -np.log1p(-ours) if self.concentration == 1 else gammaincinv(self.concentration, ours)
        gamma = gamma + 1e-300  # of a small concentration each can be exactly 0
        return gamma / gamma.sum(2, keepdims=True)

    def golds(self, examples: Examples) -> dict[str, np.ndarray]:
        """Nats of each symbol by what is counted of those before it.

        uniform: nothing, log of the states. unigram: how often each state occurred. bigram: how often each followed
        the present one. `concentration` is added to each count, which makes bigram the mean of the probability under
        what is known of the matrix (Dirichlet-multinomial): no predictor has a lower loss on average.
        """
        states = examples.tokens[:, 1:] - 1
        rows = np.arange(len(states))
        single = np.full((len(states), self.states), self.concentration)
        double = np.full((len(states), self.states, self.states), self.concentration)
        unigram, bigram = np.empty(states.shape), np.empty(states.shape)
        for place, state in enumerate(states.T):
            unigram[:, place] = single[rows, state] / single.sum(1)
            single[rows, state] += 1
            if place == 0:
                bigram[:, 0] = 1 / self.states
                continue
            before = states[:, place - 1]
            bigram[:, place] = double[rows, before, state] / double[rows, before].sum(1)
            double[rows, before, state] += 1
        uniform = np.full(states.shape, math.log(self.states))
        return {"uniform": uniform, "unigram": -np.log(unigram), "bigram": -np.log(bigram)}
