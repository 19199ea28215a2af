"""The linear layer: contracts any number of trailing dimensions into any number of new ones."""

from __future__ import annotations

import math

import jax
from flax import nnx

from lm.nn.kernels.linear import linear
from lm.nn.kernels.spread import spread
from lm.nn.param import normal, param, zeros

Dims = dict[str, int]  # logical axis -> size, in order


class Linear(nnx.Module):
    """y[..., *outputs] = x[..., *inputs] W + b. W is drawn with standard deviation scale / sqrt(fan in)."""

    def __init__(self, inputs: Dims, outputs: Dims, *, bias: bool = False, scale: float = 1.0, rngs: nnx.Rngs):
        self.contract = len(inputs)
        shape, names = (*inputs.values(), *outputs.values()), (*inputs, *outputs)
        self.weight = param(rngs, shape, names, normal(scale / math.sqrt(math.prod(inputs.values()))))
        self.bias = param(rngs, tuple(outputs.values()), tuple(outputs), zeros) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = linear(x, self.weight[...], contract=self.contract)
        return y if self.bias is None else y + spread(self.bias[...], y)
