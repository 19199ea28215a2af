"""Markov chains in context: matrices are Dirichlet, rows follow them, and bigram counts are optimal, exactly."""

import itertools
import math

import numpy as np
import pytest
from scipy.special import gammaln

from lm.config import ConfigError
from lm.data.synthetic.chains import MarkovChains
from lm.data.synthetic.markov import ALPHABET
from lm.data.synthetic.task import Examples, uniforms


def every_text(task: MarkovChains) -> Examples:
    """All rows there are."""
    texts = np.array(list(itertools.product(range(1, task.states + 1), repeat=task.length)))
    tokens = np.pad(texts, ((0, 0), (1, 0)))
    return Examples(tokens, np.broadcast_to(np.arange(task.length + 1) > 0, tokens.shape))


def likelihood(task: MarkovChains, states: list[int]) -> float:
    """The probability of a text: that under a matrix, integrated over all matrices. It is a product of Dirichlet
    integrals, one for each row of the matrix."""
    c, s = task.concentration, task.states
    counts = np.zeros((s, s))
    for before, after in itertools.pairwise(states):
        counts[before, after] += 1
    beta = lambda weights: gammaln(weights).sum(-1) - gammaln(weights.sum(-1))  # noqa: E731
    return math.exp((beta(counts + c) - beta(np.full(s, c))).sum()) / s


SMALL = [
    MarkovChains(states=2, length=4),
    MarkovChains(states=2, length=7, concentration=0.2),
    MarkovChains(states=3, length=5, concentration=2.5),
]


@pytest.mark.parametrize("task", SMALL, ids=str)
def test_bigram_is_the_probability_under_the_prior(task):
    examples = every_text(task)
    ours = np.exp(-task.golds(examples)["bigram"].sum(1))
    theirs = [likelihood(task, row) for row in (examples.tokens[:, 1:] - 1).tolist()]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("task", SMALL, ids=str)
def test_each_prediction_is_a_distribution_of_texts(task):
    for nats in task.golds(every_text(task)).values():
        assert np.exp(-nats.sum(1)).sum() == pytest.approx(1, abs=1e-12)


def test_bigram_is_best_on_average():
    """Exactly: over all texts with their probabilities, at each place."""
    task = SMALL[1]
    examples = every_text(task)
    p = np.array([likelihood(task, row) for row in (examples.tokens[:, 1:] - 1).tolist()])
    loss = {name: p @ nats for name, nats in task.golds(examples).items()}
    np.testing.assert_allclose(loss["bigram"][0], math.log(2))
    assert (loss["bigram"][2:] < loss["unigram"][2:]).all() and (loss["bigram"][2:] < loss["uniform"][2:]).all()


@pytest.mark.parametrize("task", SMALL[:2], ids=str)
def test_examples_have_these_probabilities(task):
    count = 100_000
    texts = task.make(uniforms(1, 0, 0, count, task.draws)).tokens[:, 1:] - 1
    found = np.bincount(texts @ 2 ** np.arange(task.length)[::-1], minlength=2**task.length) / count
    p = np.exp(-task.golds(every_text(task))["bigram"].sum(1))
    assert np.abs((found - p) / np.sqrt(p * (1 - p) / count)).max() < 4.5


def test_unigram_counts_what_came_before():
    task = MarkovChains(states=4, length=30, concentration=0.7)
    examples = task.make(uniforms(2, 0, 0, 20, task.draws))
    nats = task.golds(examples)
    assert (nats["uniform"] == math.log(4)).all()
    for row, ours in zip(examples.tokens[:, 1:].tolist(), nats["unigram"], strict=True):
        theirs = [-math.log((row[:t].count(row[t]) + 0.7) / (t + 4 * 0.7)) for t in range(30)]
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("concentration", [0.2, 1.0, 3.0])
def test_matrices_are_dirichlet(concentration):
    """Mean and variance of each probability, and their covariance (they add up to 1)."""
    task = MarkovChains(states=3, length=1, concentration=concentration)
    p = task.matrices(uniforms(3, 0, 0, 20_000, task.draws))
    np.testing.assert_allclose(p.sum(2), 1, rtol=1e-12)
    draws = p.reshape(-1, 3)
    variance = (1 / 3) * (2 / 3) / (3 * concentration + 1)
    assert np.abs(draws.mean(0) - 1 / 3).max() < 4 * math.sqrt(variance / len(draws))
    assert np.cov(draws.T) == pytest.approx(variance * (1.5 * np.eye(3) - 0.5), rel=0.03)


def test_the_closed_form_is_the_general_one():
    """At 1, where they meet."""
    u = uniforms(4, 0, 0, 50, MarkovChains().draws)
    near = MarkovChains(concentration=1 + 1e-9).matrices(u)
    np.testing.assert_allclose(MarkovChains().matrices(u), near, atol=1e-7)


def test_rows_follow_their_matrices():
    """Each symbol is where its number falls among the probabilities of what follows the one before."""
    task = MarkovChains(states=5, length=12)
    u = uniforms(5, 0, 0, 30, task.draws)
    for numbers, matrix, row in zip(u[:, 25:], task.matrices(u), task.make(u).tokens, strict=True):
        state = int(numbers[0] * 5)
        assert row[1] == 1 + state
        for number, token in zip(numbers[1:], row[2:], strict=True):
            below = matrix[state, : token - 1].sum()
            assert below <= number < below + matrix[state, token - 1]
            state = token - 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=f"states=1 must be from 2 to {len(ALPHABET)}"):
        MarkovChains(states=1)
    with pytest.raises(ConfigError, match="states=1000"):
        MarkovChains(states=1000)
    with pytest.raises(ConfigError, match="length=0 must be at least 1"):
        MarkovChains(length=0)
    with pytest.raises(ConfigError, match=r"concentration=0 must be at least 0\.01"):
        MarkovChains(concentration=0.0)
