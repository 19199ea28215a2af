"""An estimate of the memory that training takes, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from flax import nnx

from lm.models import Model
from lm.nn import param
from lm.objectives import shapes
from lm.train.run import Run, Training


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    params: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.params + self.gradients + self.optimizer + self.activations


def memory(run: Run) -> Memory:
    """Parameters, gradients and optimizer state exactly; activations as what the backward pass keeps.

    Those are counted as the residuals that JAX saves for one part of the batch, without what the compiler fuses
    away or needs for a moment.
    """
    module = nnx.eval_shape(lambda: run.model.build(rngs=nnx.Rngs(params=0)))
    _, params = param.split(module)
    training = run.train
    optimizer = jax.eval_shape(training.optimizer.make(0.0, param.axes(module)).init, params)
    kept = residuals(run.model, training, run.data.batch // training.accumulate, run.data.length)
    size = _bytes(params)
    return Memory(
        params=size * (2 if training.ema else 1),
        gradients=size,
        optimizer=_bytes(optimizer),
        activations=max(_bytes(kept) - size, 0),
    )


def residuals(model: Model, training: Training, rows: int, length: int) -> list[jax.ShapeDtypeStruct]:
    """The arrays that JAX keeps of so many rows between the forward and the backward pass, parameters among them."""
    graph, params = param.split(nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0))))
    batch = shapes(training.objective, model, rows, length)

    def backward(params: param.Params, batch: dict[str, jax.Array]) -> object:
        def loss(params: param.Params) -> jax.Array:
            built = param.merge(graph, training.execution.cast(graph, params))
            return training.objective(built, batch, training.execution).loss

        return jax.vjp(loss, params)[1]

    return jax.tree.leaves(jax.eval_shape(backward, params, batch))


def _bytes(tree: object) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
