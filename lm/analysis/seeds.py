"""How much a loss moves from seed to seed, where that comes from, and how many seeds show an effect of a given size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, nctdtr, ndtri, stdtrit  # scipy.stats has it all, but takes seconds to import

from lm.analysis.tables import TableError

DRAWS = 20_000
CAP = 10_000  # seeds; beyond, the answer is that seeds won't show it


def deviation(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Standard deviation (n - 1) of normal values, with its chi-square interval. NaN where they are too few."""
    x = np.asarray(values, float)
    if len(x) < 2:
        return math.nan, math.nan, math.nan
    return _chi_square(float(x.std(ddof=1)), len(x) - 1, confidence)


def pooled(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """The standard deviation of either of two arms with the same seeds, taken as one, with its interval.

    The two variances are independent only where the arms are: with correlation r they have 2 (n - 1) / (1 + r^2)
    degrees of freedom together, by which the variance of their mean is that of a chi-square (Satterthwaite 1946).
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    if len(x) < 2:
        return math.nan, math.nan, math.nan
    r = correlation(x, y)[0]
    sd = math.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)
    return _chi_square(sd, 2 * (len(x) - 1) / (1 + (0 if math.isnan(r) else r) ** 2), confidence)


def _chi_square(sd: float, df: float, confidence: float) -> tuple[float, float, float]:
    low, high = (sd * math.sqrt(df / chdtri(df, p)) for p in ((1 - confidence) / 2, (1 + confidence) / 2))
    return sd, low, high


def correlation(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Pearson's r of pairs, with Fisher's z interval (Fisher 1921): NaN for fewer than 4 pairs or a constant side."""
    x, y = np.asarray(a, float), np.asarray(b, float)
    if len(x) < 2 or not x.std() > 0 or not y.std() > 0:
        return math.nan, math.nan, math.nan
    r = float(np.corrcoef(x, y)[0, 1])
    if len(x) < 4 or abs(r) >= 1:
        return r, math.nan, math.nan
    half = float(ndtri((1 + confidence) / 2)) / math.sqrt(len(x) - 3)
    return r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source of variance: its standard deviation, and its share of all variance with an interval."""

    name: str
    sd: float
    share: float
    low: float
    high: float


def components(
    table: np.ndarray, names: tuple[str, str, str] = ("rows", "columns", "both together"), confidence: float = 0.95
) -> tuple[Source, Source, Source]:
    """What rows, columns and their combination add to the variance of a crossed table, one value a cell.

    The two-way random-effects model with its analysis-of-variance estimates, negative ones taken as 0 (Searle, Casella
    and McCulloch 1992, chapter 4). Intervals of the shares are generalized ones (Weerahandi 1993): quantiles of the
    shares with each mean square drawn anew by its chi-square. They are wide, for rows and columns are few.
    Raises TableError for fewer than 2 rows or columns, and for a missing cell.
    """
    x = np.asarray(table, float)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise TableError(f"variance components need a full table of at least 2 x 2, got one of shape {x.shape}")
    rows, columns = x.shape
    freedom = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)])
    of_rows, of_columns = x.mean(1, keepdims=True) - x.mean(), x.mean(0, keepdims=True) - x.mean()
    rest = x - x.mean() - of_rows - of_columns
    squares = np.array([columns * (of_rows**2).sum(), rows * (of_columns**2).sum(), (rest**2).sum()]) / freedom

    def variances(mean_squares: np.ndarray) -> np.ndarray:
        a, b, e = np.moveaxis(mean_squares, -1, 0)
        return np.stack([np.maximum(a - e, 0) / columns, np.maximum(b - e, 0) / rows, e], axis=-1)

    found = variances(squares)
    drawn = variances(squares * freedom / np.random.default_rng(0).chisquare(freedom, (DRAWS, 3)))
    shares = drawn / np.maximum(drawn.sum(-1, keepdims=True), np.finfo(float).tiny)
    low, high = np.quantile(shares, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    total = max(float(found.sum()), float(np.finfo(float).tiny))
    one, two, three = (
        Source(name=n, sd=math.sqrt(v), share=float(v) / total, low=float(a), high=float(b))
        for n, v, a, b in zip(names, found, low, high, strict=True)
    )
    return one, two, three


def power(effect: float, sd: float, n: int, paired: bool = False, alpha: float = 0.05) -> float:
    """The chance that a two-sided t test at level `alpha` finds a difference of `effect`, with `n` seeds an arm.

    sd: of one arm over seeds, or with `paired` of the differences inside seeds. Exact for normal losses, by the
    noncentral t distribution (Cohen 1988, 2.5); unpaired arms have one variance.
    Raises TableError for an sd that isn't positive.
    """
    if not sd > 0:
        raise TableError(f"a standard deviation of {sd} says nothing about how many seeds are needed")
    df = n - 1 if paired else 2 * n - 2
    if df < 1:
        return 0.0
    shift = abs(effect) / (sd * math.sqrt((1 if paired else 2) / n))
    limit = float(stdtrit(df, 1 - alpha / 2))
    # SciPy gives NaN for probabilities too small for it to find
    miss, wrong_side = np.nan_to_num([nctdtr(df, shift, limit), nctdtr(df, shift, -limit)])
    return float(1 - miss + wrong_side)


def seeds_for(
    effect: float, sd: float, paired: bool = False, wanted: float = 0.8, alpha: float = 0.05, cap: int = CAP
) -> float:
    """The least number of seeds an arm with which `power` reaches `wanted`; infinite beyond `cap`."""
    low, high = 1, 2
    while power(effect, sd, high, paired, alpha) < wanted:
        low, high = high, 2 * high
        if low >= cap:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(effect, sd, middle, paired, alpha) < wanted else (low, middle)
    return float(high)
