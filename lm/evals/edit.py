"""Edit distance, for many pairs at once."""

from __future__ import annotations

import numpy as np


def edit_distances(written: np.ndarray, wanted: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Levenshtein's (1966) distance between the tokens of each row of `written` and `wanted` [n, width] at the places
    `where` [n, width] is True: insertions, deletions and replacements that make one the other [n]."""
    found = np.zeros(len(written), np.int64)
    lengths = where.sum(1)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        a, b = (x[rows][where[rows]].reshape(len(rows), length) for x in (written, wanted))
        found[rows] = _equally_long(a, b)
    return found


def _equally_long(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The usual table, a row at a time, for all pairs [n, length] side by side."""
    n, length = a.shape
    before = np.broadcast_to(np.arange(length + 1), (n, length + 1))
    for i in range(length):
        now = np.empty((n, length + 1), np.int64)
        now[:, 0] = i + 1
        replaced = before[:, :-1] + (a[:, i : i + 1] != b)
        for j in range(length):
            now[:, j + 1] = np.minimum(np.minimum(now[:, j], before[:, j + 1]) + 1, replaced[:, j])
        before = now
    return before[:, -1]
