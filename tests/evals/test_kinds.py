"""Loss and accuracy of each kind: of its own examples' answers, all of them together."""

from __future__ import annotations

import numpy as np
import pytest

from lm.config import ConfigError
from lm.data import Data, TaskData
from lm.data.synthetic import FewShot, ModularSum, SparseParity, Task
from lm.errors import UserError
from lm.evals import Kinds
from tests.evals.helper import tiny

COUNT = 40


@pytest.mark.parametrize(
    ("task", "seed", "names"),
    [
        (SparseParity(tasks=3, bits=3, subset=2), 2, ["0", "1", "2"]),
        (FewShot(classes=4, labels=2, ways=2, shots=4, bare=0.5), 3, ["bare", "shown"]),
    ],
    ids=["parity", "few-shot"],
)
def test_numbers_are_those_of_a_loop_in_python(task: Task, seed: int, names: list[str]) -> None:
    model, source = tiny(task.vocab, seed), TaskData(task=task, heldout=0.0)
    examples = source.test_examples(count=COUNT)
    logp, kinds = model.forward(examples.tokens[:, :-1]), task.kinds(examples)
    assert kinds is not None and set(kinds.tolist()) == set(range(len(names)))
    expected = {}
    for kind, name in enumerate(names):
        said = [
            (-logp[i, p - 1, examples.tokens[i, p]], logp[i, p - 1].argmax() == examples.tokens[i, p])
            for i in np.flatnonzero(kinds == kind)
            for p in np.flatnonzero(examples.answers[i])
        ]
        expected[f"loss_{name}"], expected[f"accuracy_{name}"] = np.mean(said, axis=0)
    found = Kinds(examples=COUNT).prepare(model.program, source)(model.params)
    assert found.numbers == pytest.approx(expected, rel=1e-5)
    assert len(set(expected.values())) == len(expected) and not found.details


def test_what_makes_no_sense_is_refused() -> None:
    program = tiny(4).program
    with pytest.raises(UserError, match="Kinds measures examples of a task, and this run reads Data"):
        Kinds().prepare(program, Data())
    with pytest.raises(UserError, match=r"measure kinds: the examples of ModularSum.* are all of one kind"):
        Kinds().prepare(program, TaskData(task=ModularSum()))
    with pytest.raises(ConfigError, match="examples=0"):
        Kinds(examples=0)
