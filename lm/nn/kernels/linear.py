"""The linear layer's product, in the form whose weight gradient is fast on this platform."""

from __future__ import annotations

import math

import jax
from jax import lax

from lm.nn.kernels import low_precision
from lm.nn.kernels.platform import fast, flat, settled
from lm.shapes import Array, Float


def linear(
    x: Float[Array, "*rows_in"],
    w: Float[Array, "*in_out"],
    *,
    contract: int,
    plain: bool | None = None,
    exact: bool = False,
) -> Array:
    """x [*rows, *in] times w [*in, *out] -> [*rows, *out] in x's dtype; `contract` is the number of `in` axes.

    plain: True for the bare product, whose derivatives are JAX's own (forward mode too); False for the form with
    its own backward pass; None chooses by platform: its own backward on CPU, where XLA would otherwise transpose x
    and fuse what made dy into a strided copy for the weight gradient.
    exact: no 8-bit product, whatever the scope says (see `low_precision`).
    """
    if contract < 1 or x.shape[x.ndim - contract :] != w.shape[:contract]:
        raise ValueError(f"linear: the last {contract} axes of x {x.shape} aren't the first {contract} of w {w.shape}")
    rows, inner, out = x.shape[: x.ndim - contract], w.shape[:contract], w.shape[contract:]
    kind = low_precision.chosen()
    if plain is None:
        plain = not (fast("cpu") and flat())
    w = w.astype(x.dtype)
    if kind != "native" and not exact:
        size = math.prod(inner)
        y: Array = low_precision.product(kind, x.reshape(*rows, size), w.reshape(size, -1))
        return y.reshape(*rows, *out)
    if plain:
        axes = tuple(range(x.ndim - contract, x.ndim)), tuple(range(contract))
        return lax.dot_general(x, w, (axes, ((), ())))
    x_NI = x.reshape(math.prod(rows), math.prod(inner))
    return _product(x_NI, w.reshape(x_NI.shape[1], -1)).reshape(*rows, *out)


@jax.custom_vjp
def _product(x_NI: Array, w_IO: Array) -> Array:
    return x_NI @ w_IO


def _forward(x_NI: Array, w_IO: Array) -> tuple[Array, tuple[Array, Array]]:
    x_NI = settled(x_NI)
    return x_NI @ w_IO, (x_NI, w_IO)


def _backward(saved: tuple[Array, Array], dy_NO: Array) -> tuple[Array, Array]:
    x_NI, w_IO = saved
    x_NI, dy_NO = settled((x_NI, dy_NO))
    return dy_NO @ w_IO.T, x_NI.T @ dy_NO


_product.defvjp(_forward, _backward)
