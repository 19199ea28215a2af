"""Elementwise functions and norms whose backward pass keeps their inputs and nothing else.

JAX keeps every intermediate value that a derivative needs, and on CPU each is written to memory and read again. Here
the backward pass computes them anew, fused into one pass over the inputs, which are there anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax

from lm.nn.kernels.platform import fast, settled
from lm.shapes import Array


def recomputed(function: Callable[..., Array], *arguments: Array) -> Array:
    """function(*arguments), differentiated by recomputation where that is faster.

    `function` must be hashable and equal to itself from call to call (a function of a module, or a method of a
    config), and close over no array.
    """
    return _recomputed(function, *arguments) if fast("cpu") else function(*arguments)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recomputed(function: Callable[..., Array], *arguments: Array) -> Array:
    return function(*arguments)


def _forward(function: Callable[..., Array], *arguments: Array) -> tuple[Array, tuple[Array, ...]]:
    return function(*arguments), arguments


def _backward(function: Callable[..., Array], arguments: tuple[Array, ...], cotangent: Array) -> tuple[Array, ...]:
    # the barrier keeps the compiler from finding the forward pass's values again and keeping those
    arguments, cotangent = settled((arguments, cotangent))
    return jax.vjp(function, *arguments)[1](cotangent)


_recomputed.defvjp(_forward, _backward)
