"""Linear regression in context: y by plain Python, and predictors against independent derivations of them."""

import statistics

import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.data.synthetic.regression import LinearRegression
from lm.data.synthetic.task import Examples, uniforms

TASK = LinearRegression()


def made(task: LinearRegression, count: int) -> Examples:
    return task.make(uniforms(1, 0, 0, count, task.draws))


@pytest.mark.parametrize(
    "task", [TASK, LinearRegression(dimensions=2, shots=5, codebook=9, bins=7, limit=1.0)], ids=str
)
def test_y_is_the_nearest_value_to_that_of_the_line(task):
    normal = statistics.NormalDist().inv_cdf
    d, pairs = task.dimensions, task.shots + 1
    u = uniforms(1, 0, 0, 100, task.draws)
    clipped = 0
    for numbers, row, mask in zip(u.tolist(), *task.make(u), strict=True):
        assert np.flatnonzero(mask).tolist() == list(range(2, 2 * pairs + 1, 2))
        weights = [normal(x) / d**0.5 for x in numbers[:d]]
        for k in range(pairs):
            chosen = int(numbers[d + k] * task.codebook)
            assert row[1 + 2 * k] == 1 + chosen
            vector = task.vectors[chosen].tolist()
            y = sum(w * x for w, x in zip(weights, vector, strict=True)) + task.noise * normal(numbers[d + pairs + k])
            assert row[2 + 2 * k] == 1 + task.codebook + int(np.nanargmin(np.abs(task.values[1 + task.codebook :] - y)))
            clipped += abs(y) > task.limit
    assert clipped > 0 or task.limit > 1  # the small one has values beyond its limits


def test_values_and_vectors_are_those_of_the_tokens():
    task = LinearRegression(bins=4, limit=2.0, codebook=3)
    assert np.isnan(task.values[:4]).all() and task.values[4:].tolist() == [-1.5, -0.5, 0.5, 1.5]
    examples = made(task, 20)
    row, target = examples.tokens[7], task.targets(examples)[7]
    assert target.tolist() == [-1.5 + (token - 4) for token in row[2::2].tolist()]
    assert np.array_equal(task.inputs(examples)[7], np.stack([task.vectors[token - 1] for token in row[1::2].tolist()]))


def test_vectors_are_normal_and_stay():
    vectors = LinearRegression(codebook=5000, dimensions=3).vectors
    np.testing.assert_allclose(vectors.mean(0), 0, atol=4 / np.sqrt(5000))
    np.testing.assert_allclose(np.cov(vectors.T), np.eye(3), atol=4 * np.sqrt(2 / 5000))
    assert np.array_equal(TASK.vectors, LinearRegression(noise=1.0, shots=3).vectors)


def test_ridge_is_the_expectation_of_y_given_those_before():
    """All y of a row are jointly normal with covariance XX'/d + s I: condition on the first k."""
    examples = made(TASK, 40)
    x, y, ours = TASK.inputs(examples), TASK.targets(examples), TASK.estimates(examples)["ridge"]
    variance = 0.25**2 + (8 / 40) ** 2 / 12
    for i in range(40):
        covariance = x[i] @ x[i].T / 4 + variance * np.eye(13)
        for k in range(13):
            theirs = covariance[k, :k] @ np.linalg.inv(covariance[:k, :k]) @ y[i, :k]
            assert ours[i, k] == pytest.approx(theirs, abs=1e-9)


def test_least_squares_is_that_of_lstsq():
    """Of a small codebook, whose vectors recur: then the weights of least norm are meant, too."""
    task = replace(TASK, {"codebook": 6})
    examples = made(task, 40)
    x, y, ours = task.inputs(examples), task.targets(examples), task.estimates(examples)["least squares"]
    assert (ours[:, 0] == 0).all()
    for i in range(40):
        for k in range(1, 13):
            weights = np.linalg.lstsq(x[i, :k], y[i, :k], rcond=1e-10)[0]
            assert ours[i, k] == pytest.approx(x[i, k] @ weights, abs=1e-9)


def test_ridge_is_best_and_knows_how_good_it_is():
    """Its mean squared error is the variance of y given those before, which x alone tells."""
    examples = made(TASK, 4000)
    x, y = TASK.inputs(examples), TASK.targets(examples)
    squared = {name: (estimate - y) ** 2 for name, estimate in TASK.estimates(examples).items()}
    for k in range(1, 13):
        assert squared["ridge"][:, k].mean() < min(squared[name][:, k].mean() for name in ("zero", "least squares"))
    variance = 0.25**2 + (8 / 40) ** 2 / 12
    for k in (0, 2, 4, 12):
        precision = 4 * np.eye(4) + np.einsum("nkd,nke->nde", x[:, :k], x[:, :k]) / variance
        expected = variance + np.einsum("nd,nde,ne->n", x[:, k], np.linalg.inv(precision), x[:, k])
        excess = squared["ridge"][:, k] - expected
        assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(4000)


def test_least_squares_comes_near_the_noise():
    """With k pairs, more than d + 1, its error is s (1 + d / (k - d - 1)) for normal x."""
    task = LinearRegression(dimensions=2, shots=30, noise=0.1, bins=400, codebook=4096)
    examples = made(task, 4000)
    squared = (task.estimates(examples)["least squares"] - task.targets(examples)) ** 2
    for k in (10, 30):
        expected = 0.1**2 * (1 + 2 / (k - 3))
        assert squared[:, k].mean() == pytest.approx(expected, abs=4 * squared[:, k].std() / np.sqrt(4000))


def test_without_noise_least_squares_finds_the_line():
    task = LinearRegression(noise=0.0, bins=1_000_000, limit=10.0)
    examples = made(task, 200)
    error = np.abs(task.estimates(examples)["least squares"] - task.targets(examples))
    assert np.median(error[:, 3]) > 0.05 and np.median(error[:, 4:]) < task.width
    assert np.quantile(error[:, 8:], 0.99) < 2 * task.width


def test_what_cannot_be_is_refused():
    for fields, said in (
        ({"dimensions": 0}, r"LinearRegression.dimensions=0 must be at least 1"),
        ({"shots": 0}, r"LinearRegression.shots=0 must be at least 1"),
        ({"codebook": 1}, r"LinearRegression.codebook=1 must be at least 2"),
        ({"bins": 1}, r"LinearRegression.bins=1 must be at least 2"),
        ({"noise": -0.1}, r"LinearRegression.noise=-0\.1 is a standard deviation"),
        ({"limit": 0.0}, r"LinearRegression.limit=0 must be above 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            LinearRegression(**fields)
