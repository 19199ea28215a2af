"""Answers by every metric: as a loop in Python finds them from a model's logits, and as they must be by definition."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.data import Data, TaskData
from lm.data.synthetic import Addition, KeyValueRecall, ModularArithmetic, ModularSum, Reversing, Task
from lm.data.synthetic.task import Examples
from lm.errors import UserError
from lm.evals import Answers
from lm.evals.answers import candidates
from lm.evals.forward import told
from tests.evals.helper import Oracle, Tiny, tiny

# work before the answer; answers of different lengths; questions between answers
WORK = ModularSum(terms=3, modulus=2, form="scratchpad")
LENGTHS = Reversing(alphabet=2, shortest=1, longest=3)
BETWEEN = KeyValueRecall(pairs=3, keys=4, values=2, queries=2)
COUNT, CHOICES = 24, 3


def data(task: Task) -> TaskData:
    return TaskData(task=task, heldout=0.0)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def written(model: Tiny, examples: Examples) -> np.ndarray:
    """The rows with the likeliest token at each answer, one after another; what is to come is noise."""
    rows = np.random.default_rng(0).integers(0, 4, examples.tokens.shape)
    rows[:, 0] = examples.tokens[:, 0]
    for place in range(1, rows.shape[1]):
        likeliest = model.forward(rows[:, :-1])[:, place - 1].argmax(-1)
        rows[:, place] = np.where(examples.answers[:, place], likeliest, examples.tokens[:, place])
    return rows


def distance(a: list[int], b: list[int]) -> int:
    table = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, table = table, [i]
        for j, y in enumerate(b, start=1):
            table.append(min(before[j] + 1, table[-1] + 1, before[j - 1] + (x != y)))
    return table[-1]


def by_hand(model: Tiny, task: Task, examples: Examples) -> dict[str, list[float]]:
    logp, rows = model.forward(examples.tokens[:, :-1]), written(model, examples)
    found: dict[str, list[float]] = {
        name: [] for name in ("exact", "edit_distance", "token_accuracy", "logprob", "brier")
    }
    for i, (tokens, answers) in enumerate(zip(*examples, strict=True)):
        places = np.flatnonzero(answers).tolist()
        proper = places if task.answer_tokens is None else places[-task.answer_tokens :]
        found["exact"].append(float(all(rows[i, p] == tokens[p] for p in proper)))
        found["edit_distance"].append(distance(rows[i, places].tolist(), tokens[places].tolist()))
        found["token_accuracy"].append(float(np.mean([logp[i, p - 1].argmax() == tokens[p] for p in places])))
        found["logprob"].append(sum(logp[i, p - 1, tokens[p]] for p in places))
        off = [np.exp(logp[i, p - 1]) - np.eye(logp.shape[-1])[tokens[p]] for p in places]
        found["brier"].append(float(np.mean([(x**2).sum() for x in off])))
    return found


def chosen_by_hand(model: Tiny, examples: Examples) -> dict[str, list[float]]:
    """Each of the candidates in its row, and whether the first has more than all others."""
    n, width = examples.tokens.shape
    said = [row[mask].tolist() for row, mask in zip(*examples, strict=True)]
    offered: list[list[list[int]]] = []
    for i in range(n):
        mine = [said[i]]
        for k in range(1, n):
            if len(mine) < CHOICES and said[(i + k) % n] not in mine:
                mine.append(said[(i + k) % n])
        offered.append(mine)
    scores = np.zeros((n, CHOICES))
    for c in range(CHOICES):
        rows = np.zeros((n, width), int)
        begins = [row.tolist().index(True) for row in examples.answers]
        for i, begin in enumerate(begins):
            whole = [*examples.tokens[i, :begin].tolist(), *offered[i][c]]
            rows[i, : len(whole)] = whole
        logp = model.forward(rows[:, :-1])
        for i, begin in enumerate(begins):
            scores[i, c] = sum(logp[i, begin + j - 1, token] for j, token in enumerate(offered[i][c]))
    means = scores / [[len(one) for one in mine] for mine in offered]
    best = lambda x: [float(row[0] > max(row[1:])) for row in x]  # noqa: E731
    return {"choice": best(scores), "choice_normalised": best(means)}


def check(found: Any, expected: dict[str, list[float]], examples: Examples) -> None:
    assert found.details.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found.details[name], values, rtol=2e-5, atol=1e-6, err_msg=name)
        assert found.numbers[name] == pytest.approx(np.mean(values), rel=1e-5, abs=1e-7), name
    assert found.numbers["examples"] == COUNT
    assert found.numbers["answer_tokens"] == examples.answers.sum() / COUNT
    assert found.numbers.keys() == {*expected, "examples", "answer_tokens"}


@pytest.mark.parametrize(
    ("task", "seed"), [(WORK, 1), (LENGTHS, 3), (BETWEEN, 8)], ids=["work", "lengths", "questions between"]
)
def test_every_metric_is_that_of_a_loop_in_python(task: Task, seed: int) -> None:
    model, choices = tiny(task.vocab, seed), 0 if task is BETWEEN else CHOICES
    source = data(task)
    examples = source.test_examples(count=COUNT)
    found = Answers(examples=COUNT, choices=choices).prepare(model.program, source)(model.params)
    expected = by_hand(model, task, examples)
    for name in ("exact", "token_accuracy", "edit_distance"):
        assert len(set(expected[name])) > 1, f"{name} is the same for all: nothing would be shown"
    if choices:
        expected |= chosen_by_hand(model, examples)
        assert 0 < np.mean(expected["choice"]) < 1
    if task is LENGTHS:
        assert expected["choice"] != expected["choice_normalised"]
    check(found, expected, examples)


def test_another_task_is_measured_as_if_it_were_the_runs_own() -> None:
    longer = ModularSum(terms=4, modulus=2)
    model, source = tiny(longer.vocab), data(ModularSum(terms=2, modulus=2))
    found = Answers(examples=8, task=longer).prepare(model.program, source)(model.params)
    assert found == Answers(examples=8).prepare(model.program, data(longer))(model.params)
    assert found.numbers["answer_tokens"] == 1


# ---- by definition ---------------------------------------------------------------------------------------------------


def oracle(task: Task, says: Any) -> Oracle:
    """Says of the first COUNT examples' rows what `says` makes of them, with all certainty, in whatever context; and so
    of as many candidates for each."""
    rows = np.asarray(says(*data(task).test_examples(count=COUNT)))[:, 1:]
    sure = 50 * jax.nn.one_hot(rows, task.vocab)
    return Oracle(lambda tokens: jnp.repeat(sure, len(tokens) // COUNT, axis=0))


def measured(task: Task, model: Any, choices: int = 0) -> dict[str, float]:
    return Answers(examples=COUNT, choices=choices).prepare(model, data(task))({}).numbers


@pytest.mark.parametrize("task", [WORK, LENGTHS, BETWEEN])
def test_a_model_that_is_always_right(task: Task) -> None:
    choices = 0 if task is BETWEEN else CHOICES
    found = measured(task, oracle(task, lambda tokens, answers: tokens), choices)
    right = {"exact": 1.0, "token_accuracy": 1.0, "edit_distance": 0.0, "logprob": 0.0, "brier": 0.0}
    right |= {"choice": 1.0, "choice_normalised": 1.0} if choices else {}
    assert {name: found[name] for name in right} == pytest.approx(right, abs=1e-6)


def test_work_may_be_wrong_where_the_answer_is_right() -> None:
    def wrong_work(tokens: np.ndarray, answers: np.ndarray) -> np.ndarray:
        work = answers & (np.arange(tokens.shape[1]) < tokens.shape[1] - 1)
        return np.where(work, 3 - tokens, tokens)  # of two numbers the other

    found = measured(WORK, oracle(WORK, wrong_work))
    assert found["exact"] == 1 and found["token_accuracy"] == pytest.approx(1 / 3)
    assert found["edit_distance"] > 0
    last = measured(WORK, oracle(WORK, lambda tokens, answers: np.where(tokens == 0, 0, 3 - tokens)))
    assert last["exact"] == last["token_accuracy"] == 0
    assert last["brier"] == pytest.approx(2) and last["logprob"] == pytest.approx(-150)


def test_all_of_an_answer_without_work_has_to_be_right() -> None:
    task = Addition(digits=2)
    found = measured(task, oracle(task, lambda tokens, answers: np.where(np.arange(10) == 9, 14, tokens)))
    assert found["exact"] == 0 and found["token_accuracy"] == pytest.approx(2 / 3) and found["edit_distance"] == 1


def test_a_shifted_answer_is_two_edits_away() -> None:
    task = Addition(digits=3)

    def shifted(tokens: np.ndarray, answers: np.ndarray) -> np.ndarray:
        return np.concatenate([tokens[:, :8], tokens[:, 9:], tokens[:, :1]], axis=1)

    found = measured(task, oracle(task, shifted))
    assert found["edit_distance"] <= 2 < 4 * (1 - found["token_accuracy"])


def test_a_model_that_knows_nothing_chooses_nothing() -> None:
    """All candidates are equally likely: none is right for being the first."""
    found = measured(ModularSum(), Oracle(lambda tokens: jnp.zeros((*tokens.shape, 12))), CHOICES)
    assert found["choice"] == found["choice_normalised"] == 0
    assert found["logprob"] == pytest.approx(-np.log(12)) and found["brier"] == pytest.approx(11 / 12)


def test_of_nearly_equal_logits_the_larger_is_the_likeliest() -> None:
    """Their log-probabilities are the same number."""
    logits = jnp.full((1, 1, 64), 2.0).at[0, 0, 5].set(2.0 + 2.0**-22)
    logp = jax.nn.log_softmax(logits)[0, 0]
    assert logp[5] == logp[0]
    assert [bool(told(logits, jnp.array([[t]])).right[0, 0]) for t in (0, 5)] == [False, True]


# ---- candidates ------------------------------------------------------------------------------------------------------


def test_candidates_are_different_and_fit() -> None:
    tokens = np.array([[0, 1, 5, 6, 0, 0], [0, 1, 1, 1, 7, 0], [0, 2, 5, 6, 0, 0], [0, 3, 8, 8, 8, 8]])
    answers = np.array([[0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]], bool)
    found = candidates(Examples(tokens, answers), 2)
    assert found.tokens.tolist() == [
        [0, 1, 5, 6, 0, 0],
        [0, 1, 7, 0, 0, 0],
        [0, 1, 1, 1, 7, 0],
        [0, 1, 1, 1, 5, 6],
        [0, 2, 5, 6, 0, 0],
        [0, 2, 8, 8, 8, 8],
        [0, 3, 8, 8, 8, 8],
        [0, 3, 5, 6, 0, 0],
    ]
    assert [np.flatnonzero(row).tolist() for row in found.answers] == [
        [2, 3], [2, 3], [4, 5], [4, 5], [2, 3], [2, 3, 4, 5], [2, 3, 4, 5], [2, 3]
    ]  # fmt: skip
    with pytest.raises(UserError, match="choices=3: an example has only 2 different answers to choose from"):
        candidates(Examples(tokens, answers), 3)


def test_what_makes_no_sense_is_refused() -> None:
    model, source = tiny(WORK.vocab, positions=WORK.length).program, data(WORK)
    with pytest.raises(UserError, match="Answers measures examples of a task, and this run reads Data; use TaskData"):
        Answers().prepare(model, Data())
    with pytest.raises(UserError, match=r"measure other: ModularArithmetic.* has other symbols than the run's"):
        Answers(name="other", task=ModularArithmetic(modulus=3)).prepare(model, source)
    with pytest.raises(UserError, match=r"choices=4: an example has only 2 different answers"):
        Answers(choices=4, examples=50).prepare(model, data(ModularSum(terms=2, modulus=2)))
    with pytest.raises(UserError, match="choices=2: these examples have questions between their answers"):
        Answers(choices=2).prepare(model, data(BETWEEN))
    longer = ModularSum(terms=9, modulus=2, form="scratchpad")
    with pytest.raises(
        UserError, match=r"measure answers: ModularSum.* is too long: this model has 7 learned positions"
    ):
        Answers(task=longer).prepare(model, source)
    for change in ({"examples": 0}, {"choices": 1}, {"choices": -1}):
        with pytest.raises(ConfigError, match="must be"):
            replace(Answers(), change)
