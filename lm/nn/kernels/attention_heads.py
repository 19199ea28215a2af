"""Which heads belong together, where a device has some of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax import lax

from lm.nn.kernels.attention_request import Bias
from lm.shapes import Array


def read_heads(heads: int, kv_heads: int, first: Any, count: int) -> Any:
    """Of `kv_heads` the key heads that `count` of the `heads` query heads read, from `first` on, a multiple of `count`.

    Each stands for equally many of the query heads, so it comes more than once where that doesn't work out otherwise.
    first: may be traced.
    """
    group = heads // kv_heads
    each = math.gcd(group, count)
    return (first + each * np.arange(count // each)) // group


def of_heads(bias: Bias, axes: tuple[str, ...], count: int) -> Bias:
    """The bias of the `count` heads that a device has, which stand in the order of the devices along `axes`."""

    def own(q_positions: Array, k_positions: Array) -> Array:
        # asked for here, so that a derivative of its own finds no traced number that the bias closes over
        first = lax.axis_index(axes) * count
        return lax.dynamic_slice_in_dim(bias(q_positions, k_positions), first, count, axis=1)

    return own if axes else bias
