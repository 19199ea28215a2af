"""Multitask sparse parity: answers by plain Python, frequencies by a power law, subsets all different."""

import itertools
import re

import numpy as np
import pytest

from lm.config import ConfigError
from lm.data.examples import SymbolCodec
from lm.data.synthetic.parity import SparseParity
from lm.data.synthetic.task import uniforms


def test_answers_are_the_parity_of_the_tasks_bits():
    task = SparseParity(tasks=6, bits=9, subset=4)
    examples = task.make(uniforms(1, 0, 0, 400, task.draws))
    assert (examples.answers == (np.arange(12) == 11)).all()
    kinds, codec = task.kinds(examples), SymbolCodec(task.symbols)
    for row, kind in zip(examples.tokens, kinds.tolist(), strict=True):
        found = re.fullmatch(r"([01]{9}) t(\d)([01])", codec.decode(row))
        assert found and int(found[2]) == kind
        assert int(found[3]) == sum(int(found[1][bit]) for bit in task.subsets[kind]) % 2
    assert set(kinds.tolist()) == set(range(6))


def test_bits_are_equally_likely():
    task = SparseParity(bits=3, tasks=1)
    bits = task.make(uniforms(2, 0, 0, 8000, task.draws)).tokens[:, 1:4] - 1
    counts = np.bincount(bits @ [4, 2, 1], minlength=8)
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(8000 * 1 / 8 * 7 / 8)


def test_subsets_are_different_and_stay():
    task = SparseParity(tasks=40)
    assert task.subsets.shape == (40, 3)
    assert len({tuple(chosen) for chosen in task.subsets.tolist()}) == 40
    assert (np.diff(task.subsets, axis=1) > 0).all() and task.subsets.min() >= 0 and task.subsets.max() < 16
    assert np.array_equal(SparseParity(tasks=7).subsets, task.subsets[:7])
    # as many as there are
    everyone = SparseParity(tasks=10, bits=5, subset=2).subsets.tolist()
    assert sorted(map(tuple, everyone)) == list(itertools.combinations(range(5), 2))


@pytest.mark.parametrize("skew", [-1.0, 0.0, 0.5, 2.0])
def test_tasks_are_as_frequent_as_they_should_be(skew):
    task = SparseParity(tasks=12, skew=skew)
    weights = [1 / k ** (1 + skew) for k in range(1, 13)]
    np.testing.assert_allclose(task.frequencies, np.array(weights) / sum(weights), rtol=1e-12)
    # evenly spaced numbers fall on each task in proportion, but for the one at its edge
    u = uniforms(3, 0, 0, 20_000, task.draws)
    u[:, 0] = (np.arange(20_000) + 0.5) / 20_000
    counts = np.bincount(task.kinds(task.make(u)), minlength=12)
    assert np.abs(counts - 20_000 * task.frequencies).max() <= 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="tasks=11 must be from 1 to 10, as there are so many different 2 of 5 bits"):
        SparseParity(tasks=11, bits=5, subset=2)
    with pytest.raises(ConfigError, match="tasks=0"):
        SparseParity(tasks=0)
    with pytest.raises(ConfigError, match="subset=17 must be from 1 to its bits=16"):
        SparseParity(subset=17)
    with pytest.raises(ConfigError, match=r"skew=-1\.5 must be at least -1"):
        SparseParity(skew=-1.5)
