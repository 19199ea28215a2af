"""Activations, gates and norms that keep their inputs only: the values and gradients of their definitions."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.nn import GELU, GatedMLP, LayerNorm, ReLU, RMSNorm, Sigmoid, SiLU, SquaredReLU, Tanh
from lm.nn.kernels.platform import plain_forms
from lm.nn.kernels.recompute import recomputed

WIDTH = 7
ELEMENTWISE = [GELU(), GELU(approximate=False), ReLU(), SquaredReLU(), SiLU(), Sigmoid(), Tanh()]
FUNCTIONS: dict[str, tuple[Callable[..., jax.Array], int]] = {  # name -> function and number of vectors after x
    **{repr(activation): (activation, 0) for activation in ELEMENTWISE},
    "RMSNorm": (RMSNorm().normalized, 1),
    "RMSNorm, bias": (RMSNorm(bias=True).normalized, 2),
    "RMSNorm, zero-centred": (RMSNorm(zero_centered=True).normalized, 1),
    "LayerNorm": (LayerNorm().normalized, 2),
    "LayerNorm, no bias": (LayerNorm(bias=False).normalized, 1),
    "LayerNorm, zero-centred": (LayerNorm(zero_centered=True).normalized, 2),
}


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def inputs(vectors: int, *rows: int) -> tuple[jax.Array, ...]:
    return 2 * normal(*rows, WIDTH), *(normal(WIDTH, seed=i + 1) for i in range(vectors))


def results(function: Callable[..., jax.Array], arguments: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    y, pull = jax.vjp(jax.jit(lambda *a: recomputed(function, *a)), *arguments)
    return y, *pull(normal(*y.shape, seed=9).astype(y.dtype))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("rows", [(3, 5), (1, 1), ()])
def test_values_and_gradients_are_those_of_the_definition(name, rows):
    function, vectors = FUNCTIONS[name]
    arguments = inputs(vectors, *rows)
    fast = results(function, arguments)
    with plain_forms():
        plain = results(function, arguments)
    for got, right in zip(fast, plain, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)
        assert np.abs(right).max() > 0


def test_a_gate_has_the_gradients_of_both_its_inputs():
    spec, gate, up = GatedMLP(hidden=WIDTH), normal(2, 3, WIDTH), normal(2, 3, WIDTH, seed=1)
    fast = results(spec.gated, (gate, up))
    with plain_forms():
        plain = results(spec.gated, (gate, up))
    for got, right in zip(fast, plain, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_but_the_inputs_is_kept(name):
    function, vectors = FUNCTIONS[name]
    arguments = inputs(vectors, 3, 5)

    def kept() -> int:
        return sum(x.size for x in jax.tree.leaves(jax.vjp(lambda *a: recomputed(function, *a), *arguments)[1]))

    assert kept() == sum(x.size for x in arguments)


def test_bfloat16_stays_bfloat16():
    for name, (function, vectors) in FUNCTIONS.items():
        half = tuple(x.astype(jnp.bfloat16) for x in inputs(vectors, 3, 5))
        assert {x.dtype.name for x in results(function, half)} == {"bfloat16"}, name


def test_it_passes_through_vmap_and_checkpoint():
    """Two runs side by side of a scanned, checkpointed layer."""
    x = normal(2, 4, WIDTH)

    def loss(x):
        body = jax.checkpoint(lambda x, _: (recomputed(FUNCTIONS["RMSNorm"][0], x, jnp.ones(WIDTH)) + x, None))
        return jnp.sum(jax.lax.scan(body, x, None, length=3)[0] ** 2)

    together = jax.jit(jax.vmap(jax.grad(loss)))(x)
    for one, row in zip(together, x, strict=True):
        np.testing.assert_allclose(one, jax.grad(loss)(row), rtol=1e-4, atol=1e-6)
