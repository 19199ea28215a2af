"""Loss and accuracy of each kind of example: subtasks that are learned one after another hide in a smooth mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lm.config import ConfigError, config
from lm.data import Source
from lm.data.examples import as_batch
from lm.errors import UserError
from lm.evals.forward import of_task, teller
from lm.train.measure import Found, Look, Measure

if TYPE_CHECKING:
    from lm.train.step import Program


@config
class Kinds(Measure):
    """loss_K (nats an answer token) and accuracy_K of each kind K of the task's examples, by its name or number
    (`Task.kinds`, `kind_names`), over all of `examples` held-out ones together."""

    name: str = "kinds"
    examples: int = 1024

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ConfigError(f"examples={self.examples} must be at least 1")

    def prepare(self, program: Program, data: Source) -> Look:
        source = of_task(data, "Kinds")
        examples = source.test_examples(count=self.examples)
        kinds = source.task.kinds(examples)
        if kinds is None:
            raise UserError(f"measure {self.name}: the examples of {source.task} are all of one kind")
        batch, tell = as_batch(examples), teller(program)
        answers, found_kinds, names = batch["weights"] > 0, np.unique(kinds), source.task.kind_names

        def look(params: Any) -> Found:
            found = tell(params, batch)
            numbers = {}
            for kind in found_kinds.tolist():
                mine, name = answers & (kinds == kind)[:, None], names[kind] if names else kind
                numbers[f"loss_{name}"] = float(-np.asarray(found.logprob, np.float64)[mine].mean())
                numbers[f"accuracy_{name}"] = float(np.asarray(found.right)[mine].mean())
            return Found(numbers, {})

        return look
