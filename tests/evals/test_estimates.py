"""What a model predicts in regression is the mean of its distribution over values, and no other token's share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError
from lm.data import Data, TaskData
from lm.data.synthetic import LinearRegression, ModularSum
from lm.errors import UserError
from lm.evals import Estimates
from tests.evals.helper import Oracle, tiny

TASK = LinearRegression(dimensions=2, shots=4, codebook=5, bins=6)
DATA = TaskData(task=TASK, heldout=0.0)
COUNT, AT = 30, 3
EXAMPLES = DATA.test_examples(count=COUNT)
TARGETS = TASK.targets(EXAMPLES)


def squares(a: np.ndarray, b: np.ndarray) -> list[float]:
    return ((a - b) ** 2).mean(0).tolist()


def test_numbers_are_those_of_a_loop_in_python() -> None:
    model = tiny(TASK.vocab + 3, seed=1)  # with tokens that the task hasn't
    logp = model.forward(EXAMPLES.tokens[:, :-1])
    predicted = np.zeros(TARGETS.shape)
    for i, k in np.ndindex(*TARGETS.shape):
        given = logp[i, 2 * k + 1]  # x and all before it
        share = {v: np.exp(given[1 + TASK.codebook + v]) for v in range(TASK.bins)}
        centre = {v: -TASK.limit + (v + 0.5) * 2 * TASK.limit / TASK.bins for v in range(TASK.bins)}
        predicted[i, k] = sum(share[v] * centre[v] for v in share) / sum(share.values())
    estimates = TASK.estimates(EXAMPLES)
    expected = {
        "model": squares(predicted, TARGETS),
        "zero": squares(np.zeros_like(TARGETS), TARGETS),
        "least_squares": squares(estimates["least squares"], TARGETS),
        "ridge": squares(estimates["ridge"], TARGETS),
        "distance": squares(predicted, estimates["ridge"]),
    }
    found = Estimates(examples=COUNT, at=AT).prepare(model.program, DATA)(model.params)
    assert found.details.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found.details[name], values, rtol=1e-4, err_msg=name)
    assert len({tuple(x) for x in expected.values()}) == len(expected)
    numbers = {name: values[AT] for name, values in expected.items()}
    numbers["beyond_least_squares"] = numbers["model"] - numbers["least_squares"]
    numbers["beyond_ridge"] = numbers["model"] - numbers["ridge"]
    assert found.numbers == pytest.approx(numbers, rel=1e-4, abs=1e-6)


def told(logits: np.ndarray) -> Any:
    """What is measured of a model with these logits [n L V]."""
    model: Any = Oracle(lambda tokens: jnp.asarray(logits))
    return Estimates(examples=COUNT, at=AT).prepare(model, DATA)({})


def test_a_model_that_knows_y_has_no_error() -> None:
    sure = 60 * jax.nn.one_hot(EXAMPLES.tokens[:, 1:], TASK.vocab)
    # more weight still on tokens that are no values: what is asked is which value, not whether one comes
    found = told(np.asarray(sure.at[:, :, : 1 + TASK.codebook].add(100)))
    assert found.details["model"] == pytest.approx([0] * 5, abs=1e-9)
    assert found.numbers["beyond_ridge"] == pytest.approx(-found.numbers["ridge"])
    assert found.details["distance"] == pytest.approx(found.details["ridge"])


def test_a_model_that_knows_nothing_predicts_zero() -> None:
    found = told(np.zeros((COUNT, TASK.length, TASK.vocab)))
    assert found.details["model"] == pytest.approx(found.details["zero"], abs=1e-6)
    assert found.numbers["beyond_ridge"] > 0


def test_what_makes_no_sense_is_refused() -> None:
    program = tiny(TASK.vocab + 3, seed=1).program
    with pytest.raises(UserError, match="Estimates measures examples of a task, and this run reads Data"):
        Estimates().prepare(program, Data())
    with pytest.raises(UserError, match=r"measure estimates is for LinearRegression, not for ModularSum"):
        Estimates().prepare(program, TaskData(task=ModularSum()))
    with pytest.raises(UserError, match=r"measure estimates: at=5 is more than the task's 4 pairs"):
        Estimates(at=5).prepare(program, DATA)
    for make in (lambda: Estimates(examples=0), lambda: Estimates(at=-1)):
        with pytest.raises(ConfigError, match="must be at least"):
            make()
