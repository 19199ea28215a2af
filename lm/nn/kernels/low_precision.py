"""Training matrix products of 8-bit numbers, by Qwix.

Each product scales its two operands by their largest absolute values along the axis that it sums over: a scale for
every row of the one and every column of the other. So nothing is clipped, and no scale of the loss is needed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from lm.errors import UserError
from lm.shapes import Array, Float

Products = Literal["native", "int8", "fp8"]

_products: ContextVar[Products] = ContextVar("products", default="native")


@contextlib.contextmanager
def products(kind: Products) -> Iterator[None]:
    """A scope in which programs are traced with these products in their linear layers."""
    if kind != "native":
        _qwix()
    token = _products.set(kind)
    try:
        yield
    finally:
        _products.reset(token)


def chosen() -> Products:
    """The products of the scope that is being traced."""
    return _products.get()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(kind: Products, x: Float[Array, "*rows I"], w_IO: Float[Array, "I O"]) -> Float[Array, "*rows O"]:
    """x w in x's type. int8: SwitchBack (Wortsman et al. 2023, arXiv 2304.13013): the output and the gradient of x of
    int8 products, the gradient of w of a native one. fp8: all three, of e4m3 numbers and gradients in e5m2
    (Micikevicius et al. 2022, arXiv 2209.05433).

    Any backend runs them; those without such units convert back to wider types, and gain nothing.
    """
    return _dot(x, _type(kind), w_IO, _type(kind), (x.ndim - 1,), (0,))


def _forward(kind: Products, x: Array, w_IO: Array) -> tuple[Array, tuple[Array, Array]]:
    return product(kind, x, w_IO), (x, w_IO)


def _backward(kind: Products, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, w_IO = saved
    rows = tuple(range(x.ndim - 1))
    gradient = jnp.float8_e5m2 if kind == "fp8" else jnp.int8
    dx = _dot(dy, gradient, w_IO, _type(kind), (dy.ndim - 1,), (1,))
    if kind == "fp8":
        return dx, _dot(x, _type(kind), dy, gradient, rows, rows)
    return dx, lax.dot_general(x, dy, ((rows, rows), ((), ())))


product.defvjp(_forward, _backward)


def _type(kind: Products) -> Any:
    return jnp.float8_e4m3fn if kind == "fp8" else jnp.int8


def _dot(a: Array, a_type: Any, b: Array, b_type: Any, a_axes: tuple[int, ...], b_axes: tuple[int, ...]) -> Array:
    """The product that sums over these axes, with a scale for each place of the others."""
    qwix = _qwix()

    def scaled(x: Array, kind: Any, axes: tuple[int, ...]) -> Any:
        others = tuple(axis for axis in range(x.ndim) if axis not in axes)
        return qwix.quantize(x, kind, channelwise_axes=others, scale_dtype=jnp.float32)

    dims = (a_axes, b_axes), ((), ())
    return qwix.dot_general(scaled(a, a_type, a_axes), scaled(b, b_type, b_axes), dims).astype(a.dtype)


def _qwix() -> Any:
    try:
        import qwix
    except ImportError:
        raise UserError("8-bit products need Qwix: pip install 'lm[low_precision]', or products=native") from None
    return qwix
