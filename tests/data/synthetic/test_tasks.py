"""What holds for every task: examples are a function of their numbers, and rows are as the interface says."""

import numpy as np
import pytest

from lm.config import dumps, loads
from lm.data import TaskData, load
from lm.data.examples import SymbolCodec
from lm.data.synthetic import (
    Addition,
    Copying,
    Dyck,
    FewShot,
    KeyValueRecall,
    LinearRegression,
    MarkovChains,
    ModularArithmetic,
    ModularSum,
    MultiHop,
    Multiplication,
    RepeatedSequence,
    Reversing,
    Sorting,
    SparseParity,
    WordUnscramble,
)
from lm.data.synthetic.task import MARK, Task, uniforms

# each form of a task, and sizes that differ from one another, so that a mistaken one shows
TASKS: list[Task] = [
    *(ModularArithmetic(modulus=13, operation=operation) for operation in ("+", "-", "*", "/")),
    ModularArithmetic(),
    RepeatedSequence(),
    RepeatedSequence(alphabet=12, length=30, shortest=1, longest=12),
    SparseParity(),
    SparseParity(tasks=10, bits=5, subset=2, skew=-1.0),
    *(Addition(digits=digits, form=form) for digits in (1, 3) for form in ("plain", "reversed", "scratchpad")),
    *(Multiplication(digits=digits, form=form) for digits in (1, 2, 3) for form in ("plain", "reversed", "scratchpad")),
    MarkovChains(),
    MarkovChains(states=5, length=20, concentration=0.3),
    FewShot(),
    FewShot(classes=9, labels=3, ways=6, shots=12),
    *(ModularSum(terms=4, modulus=11, form=form) for form in ("direct", "scratchpad")),
    LinearRegression(),
    LinearRegression(dimensions=2, shots=3, codebook=30, bins=17),
    Copying(),
    Reversing(alphabet=9, shortest=1, longest=5),
    Sorting(),
    Dyck(),
    KeyValueRecall(),
    MultiHop(),
    WordUnscramble(),
]
pytestmark = pytest.mark.parametrize("task", TASKS, ids=lambda task: str(task).replace("'", ""))


def data(task: Task, **fields) -> TaskData:
    return TaskData(task=task, heldout=0.3, **fields)


def test_rows_are_as_the_interface_says(task):
    u = uniforms(3, 0, 0, 500, task.draws)
    given = u.copy()
    tokens, answers = task.make(u)
    assert np.array_equal(u, given)
    assert tokens.shape == answers.shape == (500, task.length + 1)
    assert np.issubdtype(tokens.dtype, np.integer) and answers.dtype == bool
    assert tokens.flags.writeable and answers.flags.writeable  # the split puts others in their places
    assert (tokens[:, 0] == MARK).all() and not answers[:, 0].any() and answers.any(1).all()
    assert tokens.min() >= 0 and tokens.max() < task.vocab
    for row, mask in zip(tokens, answers, strict=True):
        # a mark within a row is what is left, or the end of its answer
        said = row[mask]
        assert (said[:-1] != MARK).all()
        last = np.flatnonzero(mask)[-1]
        assert (row[last + 1 :] == MARK).all()


def test_symbols_are_different_texts(task):
    assert len(set(task.symbols)) == len(task.symbols) == task.vocab - 1
    assert all(task.symbols)


def test_a_row_depends_on_its_own_numbers_alone(task):
    u = uniforms(4, 0, 0, 40, task.draws)
    whole = task.make(u)
    for chosen in (np.arange(40)[::-1], np.array([17]), np.array([5, 5, 31])):
        part = task.make(u[chosen])
        assert np.array_equal(part.tokens, whole.tokens[chosen])
        assert np.array_equal(part.answers, whole.answers[chosen])


def test_the_numbers_are_used(task):
    """Each changes some example, but for one at most that a first step may not need: none is asked for in vain."""
    u = uniforms(5, 0, 0, 200, task.draws)
    whole = task.make(u).tokens
    unused = 0
    for column in range(task.draws):
        changed = u.copy()
        changed[:, column] = np.roll(u[:, column], 1)
        unused += np.array_equal(task.make(changed).tokens, whole)
    assert unused <= (1 if task.draws > 2 else 0)


def test_the_least_and_the_largest_numbers_give_rows_too(task):
    u = np.stack([np.zeros(task.draws), np.full(task.draws, 1 - 2.0**-53)])
    with np.errstate(all="raise"):
        tokens, answers = task.make(u)
    assert tokens.min() >= 0 and tokens.max() < task.vocab and answers.any(1).all()


def test_examples_are_the_same_in_batches_of_any_size(task):
    large, small = (load(data(task, batch=batch, seed=7)) for batch in (24, 8))
    whole = large.batch(1)
    parts = [small.batch(n) for n in (3, 4, 5)]
    for name in whole:
        assert np.array_equal(whole[name], np.concatenate([part[name] for part in parts]))
    other = load(data(task, batch=24, seed=8)).batch(1)
    assert not np.array_equal(whole["tokens"], other["tokens"])


def test_text_and_tokens_are_one(task):
    codec = SymbolCodec(task.symbols)
    assert codec.vocab == task.vocab
    for row in task.make(uniforms(6, 0, 0, 50, task.draws)).tokens:
        assert np.array_equal(codec.encode(codec.decode(row)), row[row != MARK])


def test_no_question_is_trained_on_and_held_out(task):
    source = data(task, test=200)
    held, trained = source.test_examples(), source.train_examples(np.arange(600))

    def questions(examples):
        asked = ((examples.tokens != MARK) & ~examples.answers).any(1, keepdims=True)  # else the row is the question
        return {tuple(row) for row in np.where(examples.answers & asked, -1, examples.tokens).tolist()}

    assert not questions(held) & questions(trained)


def test_theory_and_kinds_fit_the_examples(task):
    examples = task.make(uniforms(8, 0, 0, 60, task.draws))
    counts = examples.answers.sum(1)
    if task.answer_tokens is not None:
        assert task.answer_tokens >= 1 and (counts >= task.answer_tokens).all()
    for nats in task.golds(examples).values():
        assert nats.shape == (60, counts[0]) and (nats >= 0).all()
    kinds = task.kinds(examples)
    assert kinds is None or (kinds.shape == (60,) and np.issubdtype(kinds.dtype, np.integer))


def test_a_task_is_a_value(task):
    again = loads(dumps(task))
    assert again == task and hash(again) == hash(task)
    # all that a config knows is in its fields: an equal one makes equal examples
    u = uniforms(9, 0, 0, 5, task.draws)
    assert np.array_equal(again.make(u).tokens, task.make(u).tokens)
