"""Eight-bit products: what they round is bounded, what they don't is exact."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("qwix", reason="8-bit products need qwix: pip install 'lm[low_precision]'")

from jax.sharding import PartitionSpec as P

from lm import sharding
from lm.nn.kernels import low_precision
from lm.nn.kernels.linear import linear
from lm.nn.kernels.low_precision import product, products

KINDS: list[low_precision.Products] = ["int8", "fp8"]


def operands(rows: int = 6, inner: int = 32, out: int = 5, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Rows of x and columns of w are of very different sizes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inner)) * 10.0 ** np.arange(rows)[:, None]
    w = rng.normal(size=(inner, out)) * 0.01 ** np.arange(out)
    return jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)


def in_steps(x: jax.Array, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 numbers and the size of their step, by the definition."""
    step = np.abs(np.asarray(x, np.float64)).max(axis=axis, keepdims=True) / 127.5
    return np.clip(np.round(x / step), -128, 127), step


def away_from_ties(rows: int, columns: int, seed: int) -> np.ndarray:
    """Numbers that are no half steps of their row, so that every order of computation rounds them alike."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-120, 121, (rows, columns)) + rng.uniform(-0.4, 0.4, (rows, columns))
    steps[:, 0] = 127.5
    return (steps * 10.0 ** rng.integers(-3, 3, (rows, 1))).astype(np.float32)


CLEAR = jnp.asarray(away_from_ties(8, 32, 0)), jnp.asarray(away_from_ties(8, 32, 1).T)


def test_int8_is_the_product_of_rounded_numbers() -> None:
    x, w = CLEAR
    (x_steps, x_size), (w_steps, w_size) = in_steps(x, 1), in_steps(w, 0)
    np.testing.assert_allclose(product("int8", x, w), (x_steps @ w_steps) * x_size * w_size, rtol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_rounding_may_cost(kind: Any) -> None:
    """Of the sum of |x| |w|: half a step of 1/127.5 for each operand, or 2^-4 of each number and what is below the
    smallest exponent of e4m3."""
    x, w = (np.asarray(a, np.float64) for a in operands())
    if kind == "int8":
        off_x = np.abs(x).max(1, keepdims=True) / 255 * np.ones_like(x)
        off_w = np.abs(w).max(0, keepdims=True) / 255 * np.ones_like(w)
    else:
        off_x = np.maximum(np.abs(x) / 16, np.abs(x).max(1, keepdims=True) / 448 / 1024)
        off_w = np.maximum(np.abs(w) / 16, np.abs(w).max(0, keepdims=True) / 448 / 1024)
    bound = np.abs(x) @ off_w + off_x @ np.abs(w) + off_x @ off_w
    error = np.abs(np.asarray(product(kind, *operands()), np.float64) - x @ w)
    assert (error <= bound * (1 + 1e-5)).all()
    assert error.max() > 1e-4 * np.abs(x @ w).max()  # it does round


def test_gradients_of_int8() -> None:
    x, w = operands()
    dy = jnp.asarray(np.random.default_rng(1).normal(size=(6, 5)), jnp.float32)
    dx, dw = jax.vjp(lambda x, w: product("int8", x, w), x, w)[1](dy)
    np.testing.assert_allclose(dw, x.T @ dy, rtol=1e-5, atol=1e-2)  # native: x is as large as 1e5
    np.testing.assert_array_equal(dx, product("int8", dy, w.T))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_rows(kind: Any) -> None:
    """[B, L] rows are the same as B L of them, in the gradients too."""
    x, w = CLEAR
    dy = jnp.asarray(away_from_ties(8, 8, 2))
    dx, dw = jax.vjp(lambda x, w: product(kind, x, w), x, w)[1](dy)
    y, back = jax.vjp(lambda x, w: product(kind, x, w), x.reshape(2, 4, -1), w)
    np.testing.assert_allclose(y.reshape(8, -1), product(kind, x, w), rtol=1e-6)
    for found, one in zip(back(dy.reshape(2, 4, -1)), (dx, dw), strict=True):
        np.testing.assert_allclose(found.reshape(one.shape), one, rtol=1e-5, atol=1e-5 * float(abs(one).max()))


def test_gradients_of_fp8_are_near() -> None:
    rng = np.random.default_rng(0)
    x, w, dy = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((64, 32), (32, 48), (64, 48)))
    for found, exact in zip(jax.vjp(lambda x, w: product("fp8", x, w), x, w)[1](dy), (dy @ w.T, x.T @ dy), strict=True):
        cosine = np.sum(found * exact) / np.linalg.norm(found) / np.linalg.norm(exact)
        assert 0.995 < cosine < 0.99999  # e5m2 has two bits: a relative error of 2^-3 at most


@pytest.mark.parametrize("kind", KINDS)
def test_split_over_a_mesh_it_is_the_same(kind: Any) -> None:
    x, w = CLEAR
    where = sharding.layout("fsdp=2,tensor=2").mesh
    put = [
        jax.device_put(a, jax.NamedSharding(where, spec)) for a, spec in ((x, P("fsdp", "tensor")), (w, P("tensor")))
    ]
    found = jax.jit(lambda x, w: product(kind, x, w))(*put)
    np.testing.assert_allclose(found, product(kind, x, w), rtol=1e-5, atol=1e-6 * np.abs(x @ w).max())


def test_only_where_the_scope_says_so() -> None:
    x, w = jnp.ones((2, 3, 4)), jnp.ones((4, 2, 2))

    def types(**how: Any) -> str:
        return str(jax.make_jaxpr(lambda x, w: linear(x, w, contract=1, **how))(x, w))

    assert "i8" not in types()
    with products("int8"):
        assert "i8" in types() and "i8" not in types(exact=True)
    with products("fp8"):
        assert "f8_e4m3" in types()
    assert "i8" not in types()
