"""Sums and products of whole numbers, a token a digit, with or without the work on the way to them."""

from __future__ import annotations

import abc
from typing import ClassVar, Literal

import numpy as np

from lm.config import ConfigError, config
from lm.data.synthetic.task import MARK, Examples, Task

DIGITS = "0123456789"


@config
class Arithmetic(Task):
    """MARK a op b = answer. a and b have `digits` digits, the answer `answer_tokens`; all have zeros in front, so that
    rows are equally long, and a number's most significant digit is first.

    a and b are uniform from 0 to 10^digits - 1 and independent: numbers with few digits are as rare as they are.
    a op b and b op a are different questions, of which one may be trained on and the other held out.

    form "plain": as above. "reversed": the answer's least significant digit first, the order in which carries arise.
    "scratchpad" (Nye et al. 2021, "Show your work"): between = and the plain answer stands the work, and a #.
    All that follows the = is an answer. The forms share their symbols: a model has the same size for each.
    """

    operation: ClassVar[str]  # the symbol between the numbers
    most: ClassVar[int]  # digits of a number: it is drawn with 53 bits, and an answer has 64

    digits: int = 3
    form: Literal["plain", "reversed", "scratchpad"] = "plain"

    @property
    @abc.abstractmethod
    def work_tokens(self) -> int:
        """Tokens of the work."""

    @property
    @abc.abstractmethod
    def answer_tokens(self) -> int:
        """Digits of the answer proper."""

    @abc.abstractmethod
    def result(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The answers [n] to the numbers [n]."""

    @abc.abstractmethod
    def work(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The work as tokens [n, work_tokens]."""

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= self.most:
            raise ConfigError(f"{type(self).__name__}.digits={self.digits} must be from 1 to {self.most}")

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*DIGITS, self.operation, "=", ";", "#")

    @property
    def length(self) -> int:
        extra = self.work_tokens + 1 if self.form == "scratchpad" else 0
        return 2 * self.digits + 2 + extra + self.answer_tokens

    @property
    def draws(self) -> int:
        return 2

    def make(self, u: np.ndarray) -> Examples:
        a, b = (u * 10**self.digits).astype(np.int64).T
        answer = numerals(self.result(a, b), self.answer_tokens)
        match self.form:
            case "plain":
                told = [answer]
            case "reversed":
                told = [answer[:, ::-1]]
            case "scratchpad":
                told = [self.work(a, b), self.sign("#"), answer]
        asked = [MARK, numerals(a, self.digits), self.sign(self.operation), numerals(b, self.digits), self.sign("=")]
        tokens = beside(len(u), [*asked, *told])
        answers = np.broadcast_to(np.arange(tokens.shape[1]) > 2 * self.digits + 2, tokens.shape)
        return Examples(tokens, answers.copy())

    def sign(self, symbol: str) -> int:
        """The token of a symbol."""
        return 1 + self.symbols.index(symbol)


@config
class Addition(Arithmetic):
    """Sums, of one digit more than the numbers.

    The work is column by column from the least significant: both digits, the carry into it, and the two digits of
    their sum, the first of which is the carry out. 57+068 of three digits is asked and answered so:

        057+068=7+8+0=15;5+6+1=12;0+0+1=01;#0125
    """

    operation: ClassVar[str] = "+"
    most: ClassVar[int] = 15

    @property
    def work_tokens(self) -> int:
        return 9 * self.digits

    @property
    def answer_tokens(self) -> int:
        return self.digits + 1

    def result(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b

    def work(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        plus, equal, end = self.sign("+"), self.sign("="), self.sign(";")
        carry, columns = np.zeros_like(a), []
        for place in range(self.digits):
            one, other = a // 10**place % 10, b // 10**place % 10
            total = one + other + carry
            given = [numerals(one, 1), plus, numerals(other, 1), plus, numerals(carry, 1)]
            columns += [*given, equal, numerals(total, 2), end]
            carry = total // 10
        return beside(len(a), columns)


@config
class Multiplication(Arithmetic):
    """Products, of twice as many digits as the numbers.

    The work is first the partial products, a times each digit of b from the least significant one on, with the zeros
    of its place; then the sums of the first two of them, the first three and so on to all. Each has as many digits as
    the answer, the least significant first, and ends with ;. 57 times 68 (456 + 3420 = 3876) is asked and answered so:

        57*68=6540;0243;6783;#3876
    """

    operation: ClassVar[str] = "*"
    most: ClassVar[int] = 9

    digits: int = 2

    @property
    def work_tokens(self) -> int:
        return (2 * self.digits - 1) * (self.answer_tokens + 1)

    @property
    def answer_tokens(self) -> int:
        return 2 * self.digits

    def result(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a * b

    def work(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        places = 10 ** np.arange(self.digits)
        partial = a[:, None] * (b[:, None] // places % 10) * places
        steps = np.concatenate([partial, np.cumsum(partial, axis=1)[:, 1:]], axis=1)
        end = self.sign(";")
        return beside(len(a), [x for step in steps.T for x in (numerals(step, self.answer_tokens)[:, ::-1], end)])


def numerals(numbers: np.ndarray, width: int) -> np.ndarray:
    """Digits of numbers [n] as tokens [n, width], the most significant first: digit d is token 1 + d."""
    return 1 + numbers[:, None] // 10 ** np.arange(width - 1, -1, -1) % 10


def beside(count: int, parts: list[np.ndarray | int]) -> np.ndarray:
    """Columns of tokens, one part after another: arrays [count, ..] and tokens that stand in each row."""
    return np.concatenate([np.full((count, 1), x) if isinstance(x, int) else x for x in parts], axis=1)
