"""Modular sums: every token by plain Python."""

import re

import numpy as np
import pytest

from lm.config import ConfigError
from lm.data.examples import SymbolCodec
from lm.data.synthetic.sums import ModularSum
from lm.data.synthetic.task import uniforms


@pytest.mark.parametrize("form", ["direct", "scratchpad"])
@pytest.mark.parametrize(("terms", "modulus"), [(1, 10), (6, 10), (9, 2), (5, 23)])
def test_rows_are_right(form, terms, modulus):
    task = ModularSum(terms=terms, modulus=modulus, form=form)
    tokens, answers = task.make(uniforms(1, 0, 0, 200, task.draws))
    codec = SymbolCodec(task.symbols)
    for row, mask in zip(tokens, answers, strict=True):
        question, told = codec.decode(row).split("=")
        asked, said = ([int(n) for n in re.findall(r" (\d+)", part)] for part in (question, told))
        assert len(asked) == terms
        running = [sum(asked[:k]) % modulus for k in range(1, terms + 1)]
        assert said == (running if form == "scratchpad" else running[-1:])
        assert mask.tolist() == [False] * (terms + 2) + [True] * len(said)
    assert task.answer_tokens == 1


def test_each_question_is_equally_likely():
    """Numbers in the middle of equal parts give each question just once."""
    task = ModularSum(terms=2, modulus=5)
    u = (np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) + 0.5) / 5
    assert len({tuple(row) for row in task.make(u).tokens[:, 1:3].tolist()}) == 25


def test_the_forms_ask_the_same():
    """So that a model with work and one without are compared on the same examples."""
    u = uniforms(2, 0, 0, 50, 6)
    direct, pad = (ModularSum(form=form).make(u).tokens for form in ("direct", "scratchpad"))
    assert np.array_equal(direct[:, :8], pad[:, :8]) and np.array_equal(direct[:, -1], pad[:, -1])


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="terms=0 must be at least 1"):
        ModularSum(terms=0)
    with pytest.raises(ConfigError, match="modulus=1 must be at least 2"):
        ModularSum(modulus=1)
    with pytest.raises(ConfigError, match="form"):
        ModularSum(form="long")
