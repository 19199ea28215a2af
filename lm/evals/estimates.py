"""In-context regression: the model's predictions beside those of least squares and of Bayes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.config import ConfigError, config
from lm.data import Source
from lm.data.examples import as_batch
from lm.data.synthetic.regression import LinearRegression
from lm.errors import UserError
from lm.evals.forward import logits_of, of_task
from lm.train.measure import Found, Look, Measure

if TYPE_CHECKING:
    from lm.train.step import Program


@config
class Estimates(Measure):
    """Squared error of the mean of the model's distribution, and of theory's estimates (`LinearRegression.estimates`),
    after 0, 1, 2, .. pairs in context, over `examples` held-out rows; as numbers after `at` pairs.

    beyond_least_squares, beyond_ridge: how much more the model's error is there. distance: the mean squared difference
    between the model's prediction and that of ridge.
    """

    name: str = "estimates"
    examples: int = 512
    at: int = 8

    def __post_init__(self) -> None:
        if self.examples < 1 or self.at < 0:
            raise ConfigError(f"examples={self.examples} must be at least 1, at={self.at} at least 0")

    def prepare(self, program: Program, data: Source) -> Look:
        source = of_task(data, "Estimates")
        task = source.task
        if not isinstance(task, LinearRegression):
            raise UserError(f"measure {self.name} is for LinearRegression, not for {task}")
        if self.at > task.shots:
            raise UserError(f"measure {self.name}: at={self.at} is more than the task's {task.shots} pairs")
        examples = source.test_examples(count=self.examples)
        batch, targets = as_batch(examples), task.targets(examples)
        estimates = {name.replace(" ", "_"): x for name, x in task.estimates(examples).items()}
        known = {name: ((x - targets) ** 2).mean(0) for name, x in estimates.items()}
        values = np.nan_to_num(task.values).astype(np.float32)
        is_value = np.isfinite(task.values)

        def mean(model: Any, batch: Any) -> jax.Array:
            logits = logits_of(model, program, batch)[..., : len(values)]
            return jax.nn.softmax(jnp.where(is_value, logits, -jnp.inf)) @ values

        predict = program.apply(mean)

        def look(params: Any) -> Found:
            predicted = np.asarray(predict(params, batch), np.float64)[batch["weights"] > 0].reshape(targets.shape)
            error = {"model": ((predicted - targets) ** 2).mean(0), **known}
            error["distance"] = ((predicted - estimates["ridge"]) ** 2).mean(0)
            numbers = {name: float(x[self.at]) for name, x in error.items()}
            numbers["beyond_least_squares"] = numbers["model"] - numbers["least_squares"]
            numbers["beyond_ridge"] = numbers["model"] - numbers["ridge"]
            return Found(numbers, {name: x.tolist() for name, x in error.items()})

        return look
