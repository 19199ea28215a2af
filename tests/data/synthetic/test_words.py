"""Unscrambling: the letters are those of one word, in an order that isn't the word's."""

import itertools
from collections import Counter

import numpy as np
import pytest

from lm.config import ConfigError
from lm.data import KJV, TaskData
from lm.data.examples import SymbolCodec
from lm.data.synthetic.task import MARK, uniforms
from lm.data.synthetic.words import WordUnscramble

TASKS = [WordUnscramble(), WordUnscramble(shortest=2, longest=2, commonest=15), WordUnscramble(commonest=1)]

tasks = pytest.mark.parametrize("task", TASKS, ids=str)


@pytest.fixture(scope="module")
def counted() -> Counter[str]:
    """How often each word occurs, verse by verse and letter by letter."""
    found: Counter[str] = Counter()
    for chapter in KJV().documents():
        _, empty, *verses = chapter.lower().split("\n")
        assert empty == ""
        for verse in verses:
            found.update("".join(c if "a" <= c <= "z" else " " for c in verse).split())
    return found


@tasks
def test_an_answer_is_the_word_of_the_letters(task: WordUnscramble):
    word_of = {"".join(sorted(word)): word for word in task.words}
    assert len(word_of) == len(task.words) == task.commonest
    codec = SymbolCodec(task.symbols)
    tokens, answers = task.make(uniforms(1, 0, 0, 400, task.draws))
    assert tokens.shape == answers.shape == (400, task.length + 1)
    for row, answer in zip(tokens.tolist(), answers.tolist(), strict=True):
        letters, word = codec.decode(row).split("=")
        assert word == word_of["".join(sorted(letters))] != letters
        n = len(word)
        assert row[0] == MARK and row[2 * n + 2 :] == [MARK] * (2 * (task.longest - n) + 1)
        assert answer == [False] * (n + 2) + [True] * (n + 1) + [False] * (2 * (task.longest - n))


def test_the_words_are_the_commonest(counted: Counter[str]):
    task = WordUnscramble()
    assert list(task.words) == sorted(task.words, key=lambda w: (-counted[w], w))
    assert {len(word) for word in task.words} == {4, 5, 6, 7}
    last = task.words[-1]
    chosen = {"".join(sorted(word)): word for word in task.words}
    for word in counted:
        if 4 <= len(word) <= 7 and word not in task.words and (-counted[word], word) < (-counted[last], last):
            better = chosen["".join(sorted(word))]  # it is left out for a commoner one with its letters
            assert (-counted[better], better) < (-counted[word], word)
    assert "there" in task.words and "three" not in task.words and counted["three"] > counted[last]


def test_every_word_and_every_order_but_its_own():
    """From an example for each order of the random numbers: all orders of the letters, the word's own turned by one."""
    task = WordUnscramble(shortest=4, longest=4, commonest=10)
    for number, word in enumerate(task.words):
        u = np.array([[(number + 0.5) / 10, *p] for p in itertools.permutations((0.1, 0.2, 0.3, 0.4))])
        letters = [SymbolCodec(task.symbols).decode(row).split("=")[0] for row in task.make(u).tokens]
        expected = Counter("".join(p) for p in itertools.permutations(word))
        expected[word[1:] + word[0]] += expected.pop(word)
        assert Counter(letters) == expected


@tasks
def test_an_example_is_a_function_of_its_number(task: WordUnscramble):
    whole = task.make(uniforms(3, 0, 5, 12, task.draws))
    for first, count in ((0, 1), (1, 4), (5, 7)):
        part = task.make(uniforms(3, 0, 5 + first, count, task.draws))
        for a, b in zip(part, whole, strict=True):
            np.testing.assert_array_equal(a, b[first : first + count])
    small, large = (TaskData(task=task, batch=b, heldout=0.1).load() for b in (4, 8))
    for name, x in large.batch(1).items():
        np.testing.assert_array_equal(np.concatenate([small.batch(2)[name], small.batch(3)[name]]), x)


@tasks
def test_text_and_back(task: WordUnscramble):
    codec = SymbolCodec(task.symbols)
    assert codec.vocab == task.vocab == 28
    for row in task.make(uniforms(0, 0, 0, 50, task.draws)).tokens:
        np.testing.assert_array_equal(codec.encode(codec.decode(row)), row[row != MARK])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shortest": 1}, "WordUnscramble: shortest=1, longest=7 must be lengths from 2"),
        ({"shortest": 8}, "WordUnscramble: shortest=8, longest=7 must be lengths from 2"),
        ({"commonest": 0}, r"WordUnscramble\.commonest=0 must be at least 1"),
    ],
)
def test_bad_fields_are_refused(fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        WordUnscramble(**fields)


def test_more_words_than_there_are():
    task = WordUnscramble(commonest=10_000)
    with pytest.raises(ConfigError, match=r"commonest=10000 is too many: the King James Bible has \d,\d{3} words"):
        task.make(uniforms(0, 0, 0, 1, task.draws))
