"""Curves made small enough to send and draw, without losing what an eye would see."""

from __future__ import annotations

import itertools

import numpy as np


def thin(values: np.ndarray, most: int = 1000) -> np.ndarray:
    """The places of at most `most` of `values` [n], in order, that draw the same curve.

    The curve is cut into stretches, half of them of equal length and half of equal length on a logarithmic axis, and
    of each the lowest and the highest value stay: a spike of one step is still there. So do the first and the last.
    """
    n = len(values)
    if n <= most:
        return np.arange(n)
    cuts = (most - 2) // 4
    edges = np.unique(np.concatenate([np.linspace(0, n, cuts + 1), np.geomspace(1, n, cuts)]).astype(int))
    kept = {0, n - 1}
    for low, high in itertools.pairwise(edges.tolist()):
        part = values[low:high]
        numbers = np.flatnonzero(np.isfinite(part))
        if len(numbers):
            kept.update((low + int(numbers[part[numbers].argmin()]), low + int(numbers[part[numbers].argmax()])))
        else:
            kept.add(low)  # a gap stays a gap
    return np.array(sorted(kept))


def smooth(values: np.ndarray, amount: float) -> np.ndarray:
    """The exponential mean of `values` [n]: each step back counts `amount` times as much, corrected for the start.

    What isn't a number is left out of the mean and stays what it is. amount 0 changes nothing.
    """
    import pandas as pd

    if amount <= 0:
        return values
    finite = pd.Series(np.where(np.isfinite(values), values, np.nan))
    mean = finite.ewm(alpha=1 - amount, adjust=True, ignore_na=True).mean().to_numpy()
    return np.where(np.isfinite(values), mean, values)
