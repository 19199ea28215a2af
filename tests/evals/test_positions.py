"""Losses by place are means over rows at that place, whatever the rows and batches are like."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.data import Data, TaskData, Text, load
from lm.data.synthetic import Dyck, LinearRegression, RepeatedSequence, Task
from lm.evals import Positions
from lm.evals.positions import context_gain
from tests.evals.helper import Oracle, tiny

COUNT = 20


def by_hand(logp: np.ndarray, batch: Any, places: list[list[int]]) -> tuple[list[float], list[float]]:
    """Mean loss and accuracy of each place: places[k] is where each row's k-th is, -1 where a row has none."""
    losses, accuracies = [], []
    for where in places:
        rows = [(i, p) for i, p in enumerate(where) if p >= 0]
        targets = [int(batch["targets"][i, p]) for i, p in rows]
        losses.append(float(np.mean([-logp[i, p, t] for (i, p), t in zip(rows, targets, strict=True)])))
        accuracies.append(float(np.mean([logp[i, p].argmax() == t for (i, p), t in zip(rows, targets, strict=True)])))
    return losses, accuracies


def check(found: Any, losses: list[float], accuracies: list[float]) -> None:
    np.testing.assert_allclose(found.details["loss"], losses, rtol=2e-5)
    np.testing.assert_allclose(found.details["accuracy"], accuracies)
    assert 0 < np.mean(accuracies) < 1 and np.std(losses) > 0.1
    numbers = {name: found.numbers[name] for name in ("loss", "accuracy", "context_gain")}
    gain = context_gain(np.array(losses))
    assert numbers == pytest.approx(
        {"loss": np.mean(losses), "accuracy": np.mean(accuracies), "context_gain": gain}, rel=1e-4, abs=1e-5
    )


def data(task: Task) -> TaskData:
    return TaskData(task=task, heldout=0.0)


def test_a_row_with_as_many_answers_as_the_others_has_them_in_their_order() -> None:
    """Answers at every second token: places are numbered by answers, not by tokens."""
    task = LinearRegression(dimensions=2, shots=3, codebook=4, bins=3)
    model, source = tiny(task.vocab), data(task)
    tokens = source.test_examples(count=COUNT).tokens
    batch = {"targets": tokens[:, 1:]}
    found = Positions(examples=COUNT).prepare(model.program, source)(model.params)
    check(found, *by_hand(model.forward(tokens[:, :-1]), batch, [[2 * k + 1] * COUNT for k in range(4)]))
    assert found.details.keys() == {"loss", "accuracy"}


def test_places_that_no_row_has_an_answer_at_are_left_out() -> None:
    task = RepeatedSequence(alphabet=4, length=8, shortest=2, longest=4)
    model, source = tiny(task.vocab, seed=1), data(task)
    tokens, answers = source.test_examples(count=COUNT)
    sizes = answers.argmax(1) - 2
    assert set(sizes.tolist()) == {2, 3, 4}
    # of a block of two the answers begin with the fourth token
    places = [[place if place + 1 >= size + 2 else -1 for size in sizes.tolist()] for place in range(3, 8)]
    found = Positions(examples=COUNT).prepare(model.program, source)(model.params)
    check(found, *by_hand(model.forward(tokens[:, :-1]), {"targets": tokens[:, 1:]}, places))


def test_what_theory_gives_stands_beside() -> None:
    task = Dyck(brackets=2, depth=2, length=6)
    source = data(task)
    found = Positions(examples=COUNT).prepare(tiny(task.vocab).program, source)(tiny(task.vocab).params)
    gold = task.golds(source.test_examples(count=COUNT))["source"]
    assert found.details["source"] == pytest.approx(gold.mean(0)) and gold.mean(0)[0] == pytest.approx(np.log(2))
    assert found.numbers["source"] == pytest.approx(gold.mean())


def test_names_of_theory_have_no_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dyck, "golds", lambda self, examples: {"of two words": np.ones((COUNT, 6))})
    task = Dyck(brackets=2, depth=2, length=6)
    found = Positions(examples=COUNT).prepare(tiny(task.vocab).program, data(task))(tiny(task.vocab).params)
    assert found.numbers["of_two_words"] == 1


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("text")
    for i in range(30):
        (folder / f"{i}.txt").write_text("abc" * (i % 7 + 1))
    return Data(corpus=Text(path=str(folder)), length=8, batch=4, heldout=0.3)


class Counting(Oracle):
    """Says each byte with a certainty of its own, and has no weights: an answer by another route than any model's."""

    def __init__(self) -> None:
        table = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
        super().__init__(lambda tokens: jnp.asarray(table)[tokens])
        self.table = table


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_text_has_a_place_for_each_token_of_a_row(text: Data, batch: int) -> None:
    """The last row ends early, and the last batch is filled up: neither may count, or shift what counts."""
    source = replace(text, {"batch": batch})
    model: Any = Counting()
    rows = [{name: x[i] for name, x in b.items()} for b in load(source).heldout_batches() for i in range(batch)]
    ends = [int(row["weights"].sum()) for row in rows]
    assert 0 < ends[[*ends, 0].index(0) - 1] < 8, "the last row is whole: nothing would be shown"
    logp = np.asarray(jax.nn.log_softmax(model.table), np.float64)
    expected = []
    for place in range(8):
        nats = [-logp[row["tokens"][place], row["targets"][place]] for row in rows if row["weights"][place] > 0]
        expected.append(np.mean(nats))
    found = Positions(examples=100).prepare(model, source)({})
    np.testing.assert_allclose(found.details["loss"], expected, rtol=1e-5)
    assert found.numbers["loss"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_only_so_many_rows_are_looked_at(text: Data) -> None:
    model: Any = Counting()
    few, all_of_them = (Positions(examples=n).prepare(model, text)({}).details["loss"] for n in (4, 1000))
    rows = next(load(text).heldout_batches(4))
    logp = np.asarray(jax.nn.log_softmax(model.table), np.float64)
    np.testing.assert_allclose(few, -logp[rows["tokens"], rows["targets"]].mean(0), rtol=1e-5)
    assert few != all_of_them


@pytest.mark.parametrize(
    ("places", "early", "late"), [(512, 50, 500), (1024, 100, 1000), (64, 6, 62), (12, 1, 12), (2, 1, 2), (1, 1, 1)]
)
def test_what_is_gained_from_the_context(places: int, early: int, late: int) -> None:
    """The 50th and the 500th of 512, counted from 1."""
    loss = np.random.default_rng(places).normal(size=places)
    assert context_gain(loss) == loss[late - 1] - loss[early - 1]


def test_numbers_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="examples=0 must be at least 1"):
        Positions(examples=0)
