"""Examples of a task as data: without end or a fixed pool of them, and a split by what is asked."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from lm.config import ConfigError, Count, config, content_hash
from lm.data.dataset import Dataset, Source, check_number
from lm.data.errors import DataError
from lm.data.packing import Batch
from lm.data.synthetic.task import MARK, Examples, Task, uniforms
from lm.data.tokenizers import Codec

LAYOUT = 1  # part of the fingerprint: raise it when examples or split come out differently
TRIES = 10_000  # draws until an example falls on its side of the split
SAMPLE, AT_ONCE, ENOUGH = 4096, 512, 8  # draws that show whether a side has questions; so many of them are some
TEST = 1 << 63  # the seed of what is held out: the same examples for every run, whatever its seed


@config
class TaskData(Source):
    """Examples of a task, one a row; only answers count.

    heldout: the share of questions that training never sees, by a hash of the question; with 0 the test's examples are
    other ones than those of training, of the same questions. pool: training has only so many examples, in a fresh
    order each epoch; None: each is new. test: held-out examples there are. seed: of what is trained on; the split
    and the held-out examples are the same for all.
    """

    task: Task
    batch: int = 64
    heldout: float = 0.1
    pool: int | None = None
    test: int = 512
    seed: Count = 0

    def __post_init__(self) -> None:
        self.check()
        if self.test < 1:
            raise ConfigError(f"TaskData.test={self.test} must be at least 1")
        if self.pool is not None and self.pool < 1:
            raise ConfigError(f"TaskData.pool={self.pool} must be at least 1, or None for new examples without end")

    @property
    def length(self) -> int:  # type: ignore[override]
        return self.task.length

    @property
    def contents(self) -> Hashable:
        return self.task, self.heldout, self.pool, self.test

    def fingerprint(self) -> str:
        return content_hash(
            [], self.task.fingerprint(), repr(self.heldout), repr(self.pool), repr(self.test), str(LAYOUT)
        )

    def check_measurable(self) -> None:
        """The test's examples are there in any case."""

    def load(self) -> TaskDataset:
        return TaskDataset(self)

    def codec(self, text: str) -> Codec:
        return SymbolCodec(json.loads(text))

    def train_examples(self, numbers: np.ndarray) -> Examples:
        """Training examples by their numbers [n]."""
        low = int(numbers.min())
        return _rows(self._examples(self.seed, False, low, int(numbers.max()) + 1 - low), numbers - low)

    def test_examples(self, first: int = 0, count: int | None = None) -> Examples:
        """Held-out examples first, first + 1, ..; all of them by default."""
        return self._examples(TEST, True, first, self.test - first if count is None else count)

    def _examples(self, seed: int, heldout: bool, first: int, count: int) -> Examples:
        """Examples of one side of the split. One that falls on the other side is drawn again, from a stream of its
        try, so that each is still a function of its own number."""
        found = self.task.make(uniforms(seed, 0, first, count, self.task.draws))
        if self.heldout == 0:
            return found
        check_split(self.task, self.heldout)
        wrong = np.flatnonzero(is_heldout(found, self.heldout) != heldout)
        for attempt in range(1, TRIES):
            if not len(wrong):
                return found
            low, high = int(wrong[0]), int(wrong[-1]) + 1
            new = self.task.make(uniforms(seed, attempt, first + low, high - low, self.task.draws)[wrong - low])
            found.tokens[wrong], found.answers[wrong] = new.tokens, new.answers
            wrong = wrong[is_heldout(new, self.heldout) != heldout]
        side = "held out" if heldout else "trained on"
        raise DataError(f"{self.task} has hardly a question that is {side} at heldout={self.heldout:g}; change it")


@functools.lru_cache(maxsize=64)
def check_split(task: Task, share: float) -> None:
    """Raises DataError where hardly a question is on one side of the split, before one is drawn again and again."""
    counts = np.zeros(2, np.int64)
    for first in range(0, SAMPLE, AT_ONCE):
        sides = is_heldout(task.make(uniforms(TEST, 0, first, AT_ONCE, task.draws)), share)
        counts += np.bincount(sides, minlength=2)
        if counts.min() >= ENOUGH:
            return
    side = ("trained on", "held out")[counts.argmin()]
    raise DataError(
        f"heldout={share:g} leaves hardly a question of {task} to be {side}: {counts.min()} of {SAMPLE:,} draws; take "
        "a share that is nearer to 0.5, or 0 to measure on questions that are trained on"
    )


class TaskDataset(Dataset):
    """Batches of a task's examples."""

    def __init__(self, data: TaskData) -> None:
        self.data: TaskData = data
        self.fingerprint = data.fingerprint()
        self.tokenizer = SymbolCodec(data.task.symbols)
        self.heldout_rows = data.test
        self._order = functools.lru_cache(maxsize=3)(self._shuffled)

    def batch(self, n: int, host: int = 0, hosts: int = 1) -> Batch:
        check_number(n)
        low, count = self.share(host, hosts)
        numbers = n * self.data.batch + low + np.arange(count)
        if self.data.pool is None:
            return as_batch(self.data.train_examples(numbers))
        epochs, places = np.divmod(numbers, self.data.pool)
        chosen = np.array([self._order(int(e))[p] for e, p in zip(epochs, places, strict=True)])
        return as_batch(_rows(self._pool, chosen))

    @functools.cached_property
    def _pool(self) -> Examples:
        assert self.data.pool is not None
        return self.data.train_examples(np.arange(self.data.pool))

    def _shuffled(self, epoch: int) -> np.ndarray:
        words = np.random.Philox(key=np.array([self.data.seed, epoch], np.uint64), counter=1 << 128)
        return np.argsort(words.random_raw(self.data.pool), kind="stable")

    def heldout_batches(self, rows: int | None = None, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        low, count = self.share(host, hosts)
        whole = as_batch(self.data.test_examples(count=min(rows or self.data.test, self.data.test)))
        for first in range(0, len(whole["tokens"]), self.data.batch):
            mine = {name: x[first : first + self.data.batch][low : low + count] for name, x in whole.items()}
            short = count - len(mine["tokens"])
            yield {name: np.pad(x, ((0, short), (0, 0))) for name, x in mine.items()}


def as_batch(examples: Examples) -> Batch:
    """Examples as a model reads them: each row is one document."""
    tokens = examples.tokens.astype(np.int32)
    inputs = np.ascontiguousarray(tokens[:, :-1])
    return {
        "tokens": inputs,
        "targets": np.ascontiguousarray(tokens[:, 1:]),
        "positions": np.broadcast_to(np.arange(inputs.shape[1], dtype=np.int32), inputs.shape).copy(),
        "segments": np.ones_like(inputs),
        "weights": examples.answers[:, 1:].astype(np.float32),
    }


def is_heldout(examples: Examples, share: float) -> np.ndarray:
    """True [n] for about `share` of all questions: those whose hash lies below it. A question keeps its side wherever
    it occurs. A row that is all answer is its own question."""
    answers = examples.answers & ((examples.tokens != MARK) & ~examples.answers).any(1, keepdims=True)
    asked = np.where(answers, 0, examples.tokens + 1).astype(np.uint64)
    digest = np.zeros(len(asked), np.uint64)
    with np.errstate(over="ignore"):
        for column in asked.T:  # splitmix64 (Steele et al. 2014), a column at a time
            digest = digest + column + np.uint64(0x9E3779B97F4A7C15)
            digest = (digest ^ (digest >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            digest = (digest ^ (digest >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            digest = digest ^ (digest >> np.uint64(31))
    return (digest >> np.uint64(11)) * 2.0**-53 < share


def _rows(examples: Examples, chosen: np.ndarray) -> Examples:
    return Examples(examples.tokens[chosen], examples.answers[chosen])


class SymbolCodec(Codec):
    """A token is a symbol; the longest one that fits is taken. The mark is no text."""

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__([b"", *(symbol.encode() for symbol in symbols)], eot=MARK)
        self.symbols = tuple(symbols)
        self._number = {symbol: i for i, symbol in enumerate(symbols, start=1)}
        longest = sorted(symbols, key=len, reverse=True)
        self._find: Callable[[str], list[str]] = re.compile("|".join(map(re.escape, longest))).findall

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> np.ndarray:
        found = self._find(text)
        if sum(map(len, found)) != len(text):
            known = " ".join(self.symbols)
            raise DataError(f"'{text}' has something that is no symbol of the task; its symbols: {known}")
        return np.array([self._number[symbol] for symbol in found], np.int64)

    def dumps(self) -> str:
        return json.dumps(self.symbols, ensure_ascii=False)
