"""Modular arithmetic: answers by plain Python, each question equally likely."""

import collections
import itertools
import re

import numpy as np
import pytest

from lm.config import ConfigError
from lm.data.examples import SymbolCodec
from lm.data.synthetic.modular import ModularArithmetic
from lm.data.synthetic.task import uniforms

RULES = {
    "+": lambda a, b, p: (a + b) % p,
    "-": lambda a, b, p: (a - b) % p,
    "*": lambda a, b, p: a * b % p,
    "/": lambda a, b, p: a * pow(b, -1, p) % p,
}


def said(task: ModularArithmetic, tokens: np.ndarray) -> list[tuple[int, int, int]]:
    """a, b and c as the text of each row has them."""
    codec = SymbolCodec(task.symbols)
    form = re.compile(rf" (\d+){re.escape(task.operation)} (\d+)= (\d+)")
    found = [form.fullmatch(codec.decode(row)) for row in tokens]
    assert all(found)
    return [(int(m[1]), int(m[2]), int(m[3])) for m in found if m]


@pytest.mark.parametrize("operation", RULES)
@pytest.mark.parametrize("modulus", [2, 7, 59])
def test_answers_are_right(operation, modulus):
    task = ModularArithmetic(modulus=modulus, operation=operation)
    tokens, answers = task.make(uniforms(1, 0, 0, 300, 2))
    assert (answers == (np.arange(6) == 5)).all()
    for a, b, c in said(task, tokens):
        assert c == RULES[operation](a, b, modulus)


@pytest.mark.parametrize("operation", RULES)
def test_each_question_is_equally_likely(operation):
    """Numbers that stand in the middle of equal parts give each question just once."""
    p = 11
    seconds = p - 1 if operation == "/" else p
    u = np.array([((i + 0.5) / p, (j + 0.5) / seconds) for i in range(p) for j in range(seconds)])
    task = ModularArithmetic(modulus=p, operation=operation)
    asked = collections.Counter((a, b) for a, b, _ in said(task, task.make(u).tokens))
    least = 1 if operation == "/" else 0
    assert asked == collections.Counter(itertools.product(range(p), range(least, p)))


def test_numbers_are_tokens_in_order():
    task = ModularArithmetic(modulus=12)
    assert [task.symbols[token - 1] for token in task.numbers] == [f" {n}" for n in range(12)]


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"modulus=15 is divided by 3, .* take a prime"):
        ModularArithmetic(modulus=15, operation="/")
    with pytest.raises(ConfigError, match="modulus=1 must be at least 2"):
        ModularArithmetic(modulus=1)
    with pytest.raises(ConfigError, match="operation"):
        ModularArithmetic(operation="%")
    ModularArithmetic(modulus=15, operation="*")
    ModularArithmetic(modulus=2, operation="/")
