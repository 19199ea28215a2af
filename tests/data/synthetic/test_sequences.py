"""Copying, reversing, sorting: the answer is the question in another order, and says where it ends."""

import itertools
from collections import Counter

import numpy as np
import pytest

from lm.config import ConfigError
from lm.data import TaskData
from lm.data.examples import SymbolCodec
from lm.data.synthetic.sequences import Copying, Reversing, Rewriting, Sorting
from lm.data.synthetic.task import MARK, uniforms

TASKS = [Copying(), Reversing(), Sorting(), Sorting(alphabet=3, shortest=1, longest=5), Copying(alphabet=40, longest=4)]
ANSWER = {"Copying": list, "Reversing": lambda asked: asked[::-1], "Sorting": sorted}

tasks = pytest.mark.parametrize("task", TASKS, ids=str)


@tasks
def test_answers_are_those_of_the_question(task: Rewriting):
    tokens, answers = task.make(uniforms(1, 0, 0, 400, task.draws))
    assert tokens.shape == answers.shape == (400, task.length + 1)
    sizes = set()
    for row, answer in zip(tokens.tolist(), answers.tolist(), strict=True):
        separator = row.index(task.alphabet + 1)
        asked = row[1:separator]
        sizes.add(len(asked))
        assert min(asked) >= 1 and max(asked) <= task.alphabet
        told = ANSWER[type(task).__name__](asked)
        rest = [MARK] * (2 * (task.longest - len(asked)))
        assert row == [MARK, *asked, task.alphabet + 1, *told, MARK, *rest]
        assert answer == [False] * (len(asked) + 2) + [True] * (len(asked) + 1) + [False] * len(rest)
    assert sizes == set(range(task.shortest, task.longest + 1))


def test_every_question_is_as_likely_as_its_length_says():
    """From one example in each cell of the unit cube: all lengths, and of each all sequences, equally often."""
    task = Copying(alphabet=3, shortest=1, longest=3)
    u = (np.array(list(itertools.product(range(3), repeat=4))) + 0.5) / 3
    counts = Counter(tuple(x for x in row[1 : row.index(4)]) for row in task.make(u).tokens.tolist())
    sequences = [s for n in (1, 2, 3) for s in itertools.product((1, 2, 3), repeat=n)]
    assert counts == {s: 27 // 3 ** len(s) for s in sequences}


@tasks
def test_the_largest_and_the_smallest_random_numbers(task: Rewriting):
    for edge, size, symbol in ((0.0, task.shortest, 1), (1 - 2.0**-53, task.longest, task.alphabet)):
        row = task.make(np.full((1, task.draws), edge)).tokens[0].tolist()
        assert row[1 : row.index(task.alphabet + 1)] == [symbol] * size


@tasks
def test_an_example_is_a_function_of_its_number(task: Rewriting):
    whole = task.make(uniforms(3, 0, 5, 12, task.draws))
    for first, count in ((0, 1), (1, 4), (5, 7)):
        part = task.make(uniforms(3, 0, 5 + first, count, task.draws))
        for a, b in zip(part, whole, strict=True):
            np.testing.assert_array_equal(a, b[first : first + count])
    small, large = (TaskData(task=task, batch=b, heldout=0.2).load() for b in (4, 8))
    for name, x in large.batch(1).items():
        np.testing.assert_array_equal(np.concatenate([small.batch(2)[name], small.batch(3)[name]]), x)


@tasks
def test_text_and_back(task: Rewriting):
    codec = SymbolCodec(task.symbols)
    assert codec.vocab == task.vocab == task.alphabet + 2
    for row in task.make(uniforms(0, 0, 0, 50, task.draws)).tokens:
        np.testing.assert_array_equal(codec.encode(codec.decode(row)), row[row != MARK])


def test_texts():
    assert Copying().symbols[:3] == ("a", "b", "c")
    assert SymbolCodec(Sorting().symbols).decode([0, 3, 64, 65, 3]) == " 2 63> 2"


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (Copying, {"alphabet": 1}, r"Copying\.alphabet=1 must be at least 2"),
        (Reversing, {"shortest": 0}, "Reversing: shortest=0, longest=12 must be lengths from 1"),
        (Sorting, {"shortest": 9, "longest": 8}, "Sorting: shortest=9, longest=8 must be"),
    ],
)
def test_bad_fields_are_refused(cls: type, fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        cls(**fields)
