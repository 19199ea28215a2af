"""The linear layer's product, in the form whose weight gradient is fast on this platform."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
from jax import lax

from lm.nn.kernels.platform import fast, settled
from lm.shapes import Array, Float


def linear(
    x: Float[Array, "*rows_in"], w: Float[Array, "*in_out"], *, contract: int, plain: bool | None = None
) -> Array:
    """x [*rows, *in] times w [*in, *out] -> [*rows, *out] in x's dtype; `contract` is the number of `in` axes.

    plain: True for the bare product, whose derivatives are JAX's own (forward mode too); False for the form with
    its own backward pass; None chooses by platform: its own backward on CPU, where XLA would otherwise transpose x
    and fuse what made dy into a strided copy for the weight gradient.
    """
    return linear_of(_itself, x, w=w, contract=contract, plain=plain)


def linear_of(
    function: Callable[..., Array], *arguments: Array, w: Array, contract: int, plain: bool | None = None
) -> Array:
    """`linear(function(*arguments), w)`; where it has its own backward pass, only the arguments are kept for it.

    `function` as in `recompute.recomputed`. An activation's value is as large as its input, and is cheap to make anew.
    """
    shape = jax.eval_shape(function, *arguments).shape
    if contract < 1 or shape[len(shape) - contract :] != w.shape[:contract]:
        raise ValueError(f"linear: the last {contract} axes of x {shape} aren't the first {contract} of w {w.shape}")
    rows, inner, out = shape[: len(shape) - contract], w.shape[:contract], w.shape[contract:]
    if plain is None:
        plain = not fast("cpu")
    if plain:
        x = function(*arguments)
        axes = tuple(range(x.ndim - contract, x.ndim)), tuple(range(contract))
        return lax.dot_general(x, w.astype(x.dtype), (axes, ((), ())))
    w_IO = w.reshape(math.prod(inner), math.prod(out))
    return _product(function, w_IO, *arguments).reshape(*rows, *out)


def _itself(x: Array) -> Array:
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(function: Callable[..., Array], w_IO: Array, *arguments: Array) -> Array:
    return _forward(function, w_IO, *arguments)[0]


def _forward(function: Callable[..., Array], w_IO: Array, *arguments: Array) -> tuple[Array, tuple]:
    x = settled(function(*arguments))
    x_NI = x.reshape(-1, w_IO.shape[0])
    return x_NI @ w_IO.astype(x.dtype), (w_IO, arguments)


def _backward(function: Callable[..., Array], saved: tuple, dy_NO: Array) -> tuple[Array, ...]:
    w_IO, arguments = saved
    arguments, dy_NO = settled((arguments, dy_NO))
    x, pull = jax.vjp(function, *arguments)
    x_NI = settled(x.reshape(-1, w_IO.shape[0]))
    dx = dy_NO @ w_IO.astype(x.dtype).T
    return (x_NI.T @ dy_NO).astype(w_IO.dtype), *pull(dx.reshape(x.shape))


_product.defvjp(_forward, _backward)
