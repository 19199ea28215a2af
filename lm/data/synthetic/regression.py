"""Linear regression in the context: a function that a row shows by examples, with the predictors of theory beside."""

from __future__ import annotations

import functools

import numpy as np
from scipy.special import ndtri

from lm.config import ConfigError, config
from lm.data.synthetic.task import MARK, Examples, Task, uniforms

DRAWN = (1 << 63) + 3  # the seed of what is drawn once: no run has it
LEAST = 2.0**-54  # below any uniform number but 0, whose normal variate is infinite


@config
class LinearRegression(Task):
    """MARK x_1 y_1 .. x_k y_k, k = shots + 1: y is linear in x, by weights that are the row's own (Garg et al. 2022,
    "What can transformers learn in-context?"), here in tokens. Each y is an answer.

    x is one of `codebook` tokens, uniform; what vector in `dimensions` it stands for is drawn once for all from
    N(0, I) (`vectors`), and the model has to learn it. A row's weights are w ~ N(0, I / dimensions), and
    y = w.x + noise e with e ~ N(0, 1), as the token of the nearest of `bins` values, the centres of equal intervals
    from -limit to limit (`values`).
    """

    dimensions: int = 4
    shots: int = 12
    codebook: int = 128
    noise: float = 0.25
    bins: int = 40
    limit: float = 4.0

    def __post_init__(self) -> None:
        for field in ("dimensions", "shots"):
            if getattr(self, field) < 1:
                raise ConfigError(f"LinearRegression.{field}={getattr(self, field)} must be at least 1")
        for field in ("codebook", "bins"):
            if getattr(self, field) < 2:
                raise ConfigError(f"LinearRegression.{field}={getattr(self, field)} must be at least 2")
        if self.noise < 0:
            raise ConfigError(f"LinearRegression.noise={self.noise:g} is a standard deviation, at least 0")
        if self.limit <= 0:
            raise ConfigError(f"LinearRegression.limit={self.limit:g} must be above 0; most of y lies within 3")

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*(f" x{vector}" for vector in range(self.codebook)), *(f" y{value}" for value in range(self.bins)))

    @property
    def length(self) -> int:
        return 2 * (self.shots + 1)

    @property
    def draws(self) -> int:
        return self.dimensions + self.length

    @property
    def vectors(self) -> np.ndarray:
        """What token 1 + i of the codebook stands for [codebook, dimensions]."""
        return _vectors(self.codebook, self.dimensions)

    @property
    def values(self) -> np.ndarray:
        """The y of each token [vocab]: NaN for those that are none."""
        centres = (np.arange(self.bins) + 0.5) * self.width - self.limit
        return np.concatenate([np.full(1 + self.codebook, np.nan), centres])

    @property
    def width(self) -> float:
        """Of the interval that a y token stands for."""
        return 2 * self.limit / self.bins

    def make(self, u: np.ndarray) -> Examples:
        for_weights, for_x, for_noise = np.split(u, [self.dimensions, self.dimensions + self.shots + 1], axis=1)
        weights = _normal(for_weights) / np.sqrt(self.dimensions)
        chosen = (for_x * self.codebook).astype(np.int64)
        y = np.einsum("nkd,nd->nk", self.vectors[chosen], weights) + self.noise * _normal(for_noise)
        interval = np.clip(np.floor((y + self.limit) / self.width), 0, self.bins - 1).astype(np.int64)
        tokens = np.full((len(u), self.length + 1), MARK)
        tokens[:, 1::2], tokens[:, 2::2] = 1 + chosen, 1 + self.codebook + interval
        answers = np.zeros(tokens.shape, bool)
        answers[:, 2::2] = True
        return Examples(tokens, answers)

    def inputs(self, examples: Examples) -> np.ndarray:
        """The x of each pair [n, shots + 1, dimensions]."""
        return self.vectors[examples.tokens[:, 1::2] - 1]

    def targets(self, examples: Examples) -> np.ndarray:
        """The y of each pair, as its token tells it [n, shots + 1]."""
        return self.values[examples.tokens[:, 2::2]]

    def estimates(self, examples: Examples) -> dict[str, np.ndarray]:
        """What predictors say each y is, from its x and the pairs before it [n, shots + 1].

        zero: 0. least squares: by the weights of least norm among those that fit best; where there are about as many
        pairs as dimensions its error has no finite variance: take medians. ridge: by the mean of the weights given the
        pairs, where rounding counts as more noise, uniform in an interval: of the least mean squared
        error, but for what rounding and limit do otherwise.
        """
        x, y = self.inputs(examples), self.targets(examples)
        least = np.zeros_like(y)
        for k in range(1, self.shots + 1):
            # an x may occur twice: singular values that are 0 but for rounding are none
            inverse = np.linalg.pinv(x[:, :k], rcond=1e-10)
            least[:, k] = np.einsum("nd,ndk,nk->n", x[:, k], inverse, y[:, :k])
        return {"zero": np.zeros_like(y), "least squares": least, "ridge": self._ridge(x, y)}

    def _ridge(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(X'X + d s I)^-1 X'y times the next x, for noise of variance s and weights of variance 1 / d."""
        variance = self.noise**2 + self.width**2 / 12
        squares = _before(x[..., :, None] * x[..., None, :])
        products = _before(x * y[..., None])
        prior = self.dimensions * variance * np.eye(self.dimensions)
        weights = np.linalg.solve(squares + prior, products[..., None])[..., 0]
        return np.einsum("nkd,nkd->nk", x, weights)


def _before(terms: np.ndarray) -> np.ndarray:
    """The sum of what precedes each place of axis 1."""
    return np.cumsum(terms, axis=1) - terms


def _normal(u: np.ndarray) -> np.ndarray:
    return ndtri(np.maximum(u, LEAST))


@functools.lru_cache(maxsize=16)
def _vectors(codebook: int, dimensions: int) -> np.ndarray:
    return _normal(uniforms(DRAWN, 0, 0, codebook, dimensions))
