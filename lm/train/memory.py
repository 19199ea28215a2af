"""An estimate of the memory that training takes, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from flax import nnx

from lm.nn import param
from lm.objectives import shapes
from lm.train.run import Run


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
    graph, params = param.split(module)
    training = run.train
    axes = param.axes(module)
    optimizer = jax.eval_shape(training.optimizer.make(0.0, axes).init, params)
    rows = run.data.batch // training.accumulate
    batch = shapes(training.objective, run.model, rows, run.data.length)

    def backward(params: param.Params, batch: dict[str, jax.Array]) -> object:
        def loss(params: param.Params) -> jax.Array:
            model = param.merge(graph, training.execution.cast(graph, params))
            return training.objective(model, batch, training.execution).loss

        return jax.vjp(loss, params)[1]

    kept = jax.eval_shape(backward, params, batch)
    size = _bytes(params)
    return Memory(
        params=size * (2 if training.ema else 1),
        gradients=size,
        optimizer=_bytes(optimizer),
        activations=max(_bytes(kept) - size, 0),
    )


def _bytes(tree: object) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
