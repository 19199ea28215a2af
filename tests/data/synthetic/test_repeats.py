"""A repeated sequence: what the repetition determines is asked, and nothing else."""

import numpy as np
import pytest

from lm.config import ConfigError
from lm.data.synthetic.repeats import RepeatedSequence
from lm.data.synthetic.task import uniforms

TASKS = [RepeatedSequence(), RepeatedSequence(alphabet=6, length=14, shortest=1, longest=6)]


@pytest.mark.parametrize("task", TASKS, ids=["large", "small"])
def test_a_block_of_different_symbols_is_repeated(task):
    sizes = set()
    for row in task.make(uniforms(1, 0, 0, 300, task.draws)).tokens.tolist():
        size = row.index(row[1], 2) - 1
        sizes.add(size)
        block = row[1 : size + 1]
        assert len(set(block)) == size
        assert row == ([0] + block * task.length)[: task.length + 1]
    assert sizes == set(range(task.shortest, task.longest + 1))


@pytest.mark.parametrize("task", TASKS, ids=["large", "small"])
def test_answers_are_what_an_induction_head_predicts(task):
    """A token is an answer where the one before it has occurred before; what followed it then is the answer."""
    tokens, answers = task.make(uniforms(2, 0, 0, 300, task.draws))
    for row, mask in zip(tokens.tolist(), answers.tolist(), strict=True):
        for i in range(1, len(row)):
            earlier = [j for j in range(1, i - 1) if row[j] == row[i - 1]]
            assert mask[i] == bool(earlier)
            assert all(row[j + 1] == row[i] for j in earlier)


def test_each_length_is_equally_likely():
    """Numbers in the middle of equal parts give each length just once, whatever the symbols are."""
    task = RepeatedSequence(shortest=5, longest=16)
    u = uniforms(3, 0, 0, 12, task.draws)
    u[:, 0] = (np.arange(12) + 0.5) / 12
    assert (task.length + 1 - task.make(u).answers.sum(1) - 2).tolist() == list(range(5, 17))


def test_symbols_are_equally_likely_and_in_any_order():
    task = RepeatedSequence(alphabet=3, length=6, shortest=2, longest=2)
    tokens = task.make(uniforms(4, 0, 0, 6000, task.draws)).tokens
    pairs = np.bincount(3 * (tokens[:, 1] - 1) + tokens[:, 2] - 1, minlength=9).reshape(3, 3)
    assert (np.diag(pairs) == 0).all()
    assert np.abs(pairs[~np.eye(3, dtype=bool)] - 1000).max() < 4 * np.sqrt(6000 * 1 / 6 * 5 / 6)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="longest=9 must be lengths of a block from 1 to alphabet=8"):
        RepeatedSequence(alphabet=8, longest=9)
    with pytest.raises(ConfigError, match="shortest=0, longest=24"):
        RepeatedSequence(shortest=0)
    with pytest.raises(ConfigError, match="the longest at least the shortest"):
        RepeatedSequence(shortest=20, longest=10)
    with pytest.raises(ConfigError, match=r"length=25 leaves nothing .* must be at least 26"):
        RepeatedSequence(length=25)
    task = RepeatedSequence(length=26)
    assert task.make(uniforms(5, 0, 0, 200, task.draws)).answers.any(1).all()
