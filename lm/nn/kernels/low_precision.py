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
def product(kind: Products, x_NI: Float[Array, "N I"], w_IO: Float[Array, "I O"]) -> Float[Array, "N O"]:
    """x w in x's type. int8: SwitchBack (Wortsman et al. 2023, arXiv 2304.13013): the output and the gradient of x of
    int8 products, the gradient of w of a native one. fp8: all three, of e4m3 numbers and gradients in e5m2
    (Micikevicius et al. 2022, arXiv 2209.05433).

    Any backend runs them; those without such units convert back to wider types, and gain nothing.
    """
    return _dot(x_NI, _type(kind), w_IO, _type(kind))


def _forward(kind: Products, x_NI: Array, w_IO: Array) -> tuple[Array, tuple[Array, Array]]:
    return product(kind, x_NI, w_IO), (x_NI, w_IO)


def _backward(kind: Products, saved: tuple[Array, Array], dy_NO: Array) -> tuple[Array, Array]:
    x_NI, w_IO = saved
    gradient = jnp.float8_e5m2 if kind == "fp8" else jnp.int8
    dx_NI = _dot(dy_NO, gradient, w_IO.T, _type(kind))
    dw_IO = _dot(x_NI.T, _type(kind), dy_NO, gradient) if kind == "fp8" else x_NI.T @ dy_NO
    return dx_NI, dw_IO


product.defvjp(_forward, _backward)


def _type(kind: Products) -> Any:
    return jnp.float8_e4m3fn if kind == "fp8" else jnp.int8


def _dot(a_NI: Array, a_type: Any, b_IO: Array, b_type: Any) -> Array:
    qwix = _qwix()
    left = qwix.quantize(a_NI, a_type, channelwise_axes=(0,), scale_dtype=jnp.float32)
    right = qwix.quantize(b_IO, b_type, channelwise_axes=(1,), scale_dtype=jnp.float32)
    return qwix.dot_general(left, right, (((1,), (0,)), ((), ()))).astype(a_NI.dtype)


def _qwix() -> Any:
    try:
        import qwix
    except ImportError:
        raise UserError("8-bit products need Qwix: pip install 'lm[low_precision]', or products=native") from None
    return qwix
