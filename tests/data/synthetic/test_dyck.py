"""Dyck: the language is the one its definition makes, and its nats are exact."""

import contextlib
import itertools
import math
from collections import Counter

import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.data import TaskData
from lm.data.examples import SymbolCodec
from lm.data.synthetic.dyck import Dyck
from lm.data.synthetic.task import MARK, Examples, uniforms

TINY = Dyck(brackets=2, depth=2, length=4, open=0.25)
TASKS = [Dyck(), Dyck(brackets=1, depth=1, length=5), Dyck(brackets=12, depth=3, length=30, open=0.8)]


def following(task: Dyck, stack: list[str]) -> dict[str, float]:
    """The definition: the probability of each symbol while these brackets are open. Works on symbols, not numbers."""
    pairs = list(zip(task.symbols[: task.brackets], task.symbols[task.brackets :], strict=True))
    if not stack:
        opening = 1.0
    elif len(stack) == task.depth:
        opening = 0.0
    else:
        opening = task.open
    likely = {left: opening / task.brackets for left, _ in pairs}
    likely |= {right: 1 - opening if stack and left == stack[-1] else 0.0 for left, right in pairs}
    return {symbol: p for symbol, p in likely.items() if p > 0}


def chances(task: Dyck, text: tuple[str, ...]) -> list[float]:
    """The probability of each symbol given those before it; KeyError where one is impossible."""
    found, stack = [], []
    for symbol in text:
        found.append(following(task, stack)[symbol])
        if symbol in task.symbols[: task.brackets]:
            stack.append(symbol)
        else:
            stack.pop()
    return found


def language(task: Dyck) -> dict[tuple[str, ...], list[float]]:
    found = {}
    for text in itertools.product(task.symbols, repeat=task.length):
        with contextlib.suppress(KeyError):
            found[text] = chances(task, text)
    return found


def texts(task: Dyck, tokens: np.ndarray) -> list[tuple[str, ...]]:
    return [tuple(task.symbols[t - 1] for t in row[1:]) for row in tokens.tolist()]


def examples(task: Dyck, strings: list[tuple[str, ...]]) -> Examples:
    tokens = np.array([[MARK, *(1 + task.symbols.index(s) for s in text)] for text in strings])
    return Examples(tokens, np.broadcast_to(np.arange(task.length + 1) > 0, tokens.shape))


@pytest.mark.parametrize(
    "task", [TINY, Dyck(brackets=1, depth=3, length=6, open=0.7), Dyck(brackets=2, depth=1, length=5)], ids=str
)
def test_the_nats_are_those_of_all_texts(task: Dyck):
    found = language(task)
    nats = task.golds(examples(task, list(found)))["source"]
    assert nats.shape == (len(found), task.length)
    assert np.exp(-nats.sum(1)).sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(nats, -np.log(list(found.values())), atol=1e-12)


def test_the_texts_come_as_often_as_they_are_likely():
    """From one example in each cell of the unit cube, so exactly: a quarter opens, and each kind is half of that."""
    cells = itertools.product(*[range(4)] * TINY.length, *[range(2)] * TINY.length)
    u = (np.array(list(cells)) + 0.5) / ([4] * TINY.length + [2] * TINY.length)
    counts = Counter(texts(TINY, TINY.make(u).tokens))
    found = language(TINY)
    assert set(counts) == set(found)
    for text, p in found.items():
        assert counts[text] == pytest.approx(len(u) * math.prod(p), rel=1e-12)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_every_row_is_of_the_language(task: Dyck):
    made = task.make(uniforms(1, 0, 0, 300, task.draws))
    assert made.tokens.shape == (300, task.length + 1)
    assert (made.tokens[:, 0] == MARK).all() and not made.answers[:, 0].any() and made.answers[:, 1:].all()
    expected = [chances(task, text) for text in texts(task, made.tokens)]
    np.testing.assert_allclose(task.golds(made)["source"], -np.log(expected), atol=1e-12)


def test_rows_go_as_deep_as_they_may():
    task = Dyck()
    tokens = task.make(uniforms(0, 0, 0, 300, task.draws)).tokens[:, 1:]
    depth = np.cumsum(np.where(tokens <= task.brackets, 1, -1), axis=1)
    assert depth.min() == 0 and depth.max() == task.depth
    assert set(np.unique(tokens)) == set(range(1, 2 * task.brackets + 1))


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_an_example_is_a_function_of_its_number(task: Dyck):
    whole = task.make(uniforms(3, 0, 5, 12, task.draws))
    for first, count in ((0, 1), (1, 4), (5, 7)):
        part = task.make(uniforms(3, 0, 5 + first, count, task.draws))
        for a, b in zip(part, whole, strict=True):
            np.testing.assert_array_equal(a, b[first : first + count])
    small, large = (TaskData(task=task, batch=b, heldout=0.0).load() for b in (4, 8))
    for name, x in large.batch(1).items():
        np.testing.assert_array_equal(np.concatenate([small.batch(2)[name], small.batch(3)[name]]), x)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_text_and_back(task: Dyck):
    codec = SymbolCodec(task.symbols)
    assert codec.vocab == task.vocab == 2 * task.brackets + 1
    for row in task.make(uniforms(0, 0, 0, 50, task.draws)).tokens:
        np.testing.assert_array_equal(codec.encode(codec.decode(row)), row[1:])


def test_texts():
    assert replace(TINY, {"brackets": 3}).symbols == ("(", "[", "{", ")", "]", "}")
    assert SymbolCodec(TASKS[-1].symbols).decode([11, 23]) == " (10 10)"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"brackets": 0}, r"Dyck\.brackets=0 must be at least 1"),
        ({"depth": 0}, r"Dyck\.depth=0 must be at least 1"),
        ({"length": 0}, r"Dyck\.length=0 must be at least 1"),
        ({"open": 0.0}, r"Dyck\.open=0 is a probability above 0"),
        ({"open": 1.0}, r"Dyck\.open=1 is a probability above 0"),
    ],
)
def test_bad_fields_are_refused(fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Dyck(**fields)
