"""Edit distances of many pairs at once are those of the textbook, a pair at a time."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from lm.evals.edit import edit_distances


def textbook(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """By the recursion that defines it (Levenshtein 1966)."""

    @functools.cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        replaced = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, replaced)

    return distance(len(a), len(b))


@pytest.mark.parametrize("alphabet", [2, 3, 10])
def test_random_rows(alphabet: int) -> None:
    rng = np.random.default_rng(alphabet)
    written, wanted = rng.integers(0, alphabet, (2, 300, 9))
    where = rng.random((300, 9)) < rng.random((300, 1))  # gaps, rows of all lengths, none at all
    found = edit_distances(written, wanted, where)
    rows = zip(written, wanted, where, strict=True)
    expected = [textbook(tuple(a[mask].tolist()), tuple(b[mask].tolist())) for a, b, mask in rows]
    assert found.tolist() == expected
    assert {0, 1, 9} <= set(where.sum(1).tolist())
    unequal = ((written != wanted) & where).sum(1)
    assert (found <= unequal).all() and (found < unequal).any()  # not merely places that differ


def test_known_pairs() -> None:
    rows = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8]])
    wanted = np.array([[1, 2, 3, 4], [2, 3, 4, 1], [9, 2, 9, 4], [1, 2, 3, 4]])
    everywhere = np.ones(rows.shape, bool)
    assert edit_distances(rows, wanted, everywhere).tolist() == [0, 2, 2, 4]
    assert edit_distances(rows, wanted, everywhere & (np.arange(4) < 2)).tolist() == [0, 2, 1, 2]
