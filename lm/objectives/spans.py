"""Which spans of a document are taken out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def composition(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """`total` as a sum of so many positive numbers, all ways equally likely."""
    cuts = np.sort(rng.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(cuts, prepend=0, append=total)


def shared(sizes: Sequence[int] | np.ndarray, rate: float) -> np.ndarray:
    """A share of each size, in whole numbers that add up to round(rate * total): each is exact to within one."""
    ends = np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))])
    return np.diff(np.floor(rate * ends + 0.5).astype(np.int64))


def placed(lengths: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Starts and ends [2k] of spans of these lengths [k] in `total` tokens, at least one apart, all ways alike."""
    kept = composition(total - int(lengths.sum()) + 2, len(lengths) + 1, rng)  # the outer two may be empty: one less
    return np.cumsum(np.stack([kept[:-1], lengths], axis=1).ravel()) - 1


def poisson_lengths(total: int, mean: float, most: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths above 0 that add up to `total`, Poisson ones but the last; at most `most` of them."""
    drawn = np.maximum(rng.poisson(mean, total), 1)
    count = min(int(np.searchsorted(np.cumsum(drawn), total)) + 1, most)
    lengths = drawn[:count]
    lengths[-1] = total - lengths[:-1].sum()
    return lengths
