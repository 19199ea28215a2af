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
    """y[..., *outputs] = x[..., *inputs] W + b. W is drawn with standard deviation scale / sqrt(fan in).

    precise: its parameters are (see `param`), and its product isn't of 8-bit numbers.
    """

    def __init__(
        self,
        inputs: Dims,
        outputs: Dims,
        *,
        bias: bool = False,
        scale: float = 1.0,
        precise: bool = False,
        rngs: nnx.Rngs,
    ):
        self.contract, self.precise = len(inputs), precise
        shape, names = (*inputs.values(), *outputs.values()), (*inputs, *outputs)
        drawn = normal(scale / math.sqrt(math.prod(inputs.values())))
        self.weight = param(rngs, shape, names, drawn, precise=precise)
        self.bias = param(rngs, tuple(outputs.values()), tuple(outputs), zeros, precise=precise) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = linear(x, self.weight[...], contract=self.contract, exact=self.precise)
        return y if self.bias is None else y + spread(self.bias[...], y)
