"""Sums and products: question, work and answer by plain Python, in the exact form that is documented."""

import re

import numpy as np
import pytest

from lm.config import ConfigError
from lm.data.examples import SymbolCodec
from lm.data.synthetic.arithmetic import Addition, Arithmetic, Multiplication
from lm.data.synthetic.task import uniforms

FORMS = ("plain", "reversed", "scratchpad")


def texts(task: Arithmetic, u: np.ndarray) -> list[str]:
    codec = SymbolCodec(task.symbols)
    return [codec.decode(row) for row in task.make(u).tokens]


def asked(task: Arithmetic, *questions: tuple[int, int]) -> list[str]:
    """The rows that ask this."""
    return texts(task, (np.array(questions) + 0.5) / 10**task.digits)


def sum_work(a: str, b: str) -> str:
    """Column by column, on text."""
    carry, text = 0, ""
    for x, y in zip(reversed(a), reversed(b), strict=True):
        total = int(x) + int(y) + carry
        text += f"{x}+{y}+{carry}={total:02};"
        carry = total // 10
    return text


def product_work(a: str, b: str) -> str:
    width = 2 * len(a)
    backwards = lambda n: f"{n:0{width}}"[::-1] + ";"  # noqa: E731
    partial = [int(a) * int(y + "0" * place) for place, y in enumerate(reversed(b))]
    sums = [sum(partial[:k]) for k in range(2, len(partial) + 1)]
    return "".join(map(backwards, partial + sums))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("digits", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", [Addition, Multiplication])
def test_rows_are_right(kind, digits, form):
    task = kind(digits=digits, form=form)
    u = uniforms(1, 0, 0, 200, 2)
    answers = task.make(u).answers
    for text, mask in zip(texts(task, u), answers, strict=True):
        found = re.fullmatch(rf"(\d{{{digits}}})[+*](\d{{{digits}}})=(.*)", text)
        assert found
        a, b, told = found.groups()
        if kind is Addition:
            answer, work = f"{int(a) + int(b):0{digits + 1}}", sum_work(a, b)
        else:
            answer, work = f"{int(a) * int(b):0{2 * digits}}", product_work(a, b)
        assert told == {"plain": answer, "reversed": answer[::-1], "scratchpad": f"{work}#{answer}"}[form]
        # all after the = is to be told, the answer proper last; the mark before the text has a place of its own
        assert mask.tolist() == [False] * (2 * digits + 3) + [True] * len(told)
        assert task.answer_tokens == len(answer)


def test_the_documented_examples():
    pad = "scratchpad"
    assert asked(Addition(digits=3, form=pad), (57, 68)) == ["057+068=7+8+0=15;5+6+1=12;0+0+1=01;#0125"]
    assert asked(Multiplication(digits=2, form=pad), (57, 68)) == ["57*68=6540;0243;6783;#3876"]
    assert asked(Addition(digits=2, form="reversed"), (99, 7), (0, 0)) == ["99+07=601", "00+00=000"]
    for kind in (Addition, Multiplication):
        for example in asked(kind(form=pad), (57, 68)):
            assert example in (kind.__doc__ or "")


def test_numbers_are_uniform():
    """Numbers in the middle of equal parts give each just once."""
    assert asked(Addition(digits=2), *((n, 99 - n) for n in range(100))) == [
        f"{n:02}+{99 - n:02}=099" for n in range(100)
    ]


def test_the_largest_numbers_are_exact():
    u = np.array([[1 - 2.0**-53, 1 - 2.0**-53], [0.123456789, 0.987654321]])
    for kind, digits, sign in ((Addition, 15, "+"), (Multiplication, 9, "*")):
        plain = texts(kind(digits=digits), u)
        first = "9" * digits
        assert plain[0].startswith(f"{first}{sign}{first}=")
        for text in plain:
            question, answer = text.split("=")
            a, b = map(int, question.split(sign))
            assert int(answer) == (a + b if sign == "+" else a * b)
        padded = texts(kind(digits=digits, form="scratchpad"), u)
        assert [text.split("#")[1] for text in padded] == [text.split("=")[1] for text in plain]


def test_forms_share_their_symbols():
    for kind in (Addition, Multiplication):
        assert len({kind(form=form).symbols for form in FORMS}) == 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"Addition.digits=16 must be from 1 to 15"):
        Addition(digits=16)
    with pytest.raises(ConfigError, match=r"Multiplication.digits=10 must be from 1 to 9"):
        Multiplication(digits=10)
    with pytest.raises(ConfigError, match=r"Addition.digits=0"):
        Addition(digits=0)
    with pytest.raises(ConfigError, match="form"):
        Addition(form="backwards")
