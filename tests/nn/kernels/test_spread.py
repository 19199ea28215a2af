"""A vector laid over rows: values, and a gradient that is summed in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.nn.kernels.platform import plain_forms
from lm.nn.kernels.spread import spread


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


@pytest.mark.parametrize(("rows", "inner"), [((3, 5), (8,)), ((7,), (4, 2)), ((), (6,)), ((1, 1), (1,)), ((0,), (3,))])
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_value_and_gradient_are_those_of_broadcasting(rows, inner, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    vector, cotangent = normal(*inner), normal(*rows, *inner, seed=1)
    value, pull = jax.vjp(lambda v: spread(v, cotangent), vector)
    np.testing.assert_array_equal(value, np.broadcast_to(vector, cotangent.shape))
    np.testing.assert_allclose(pull(cotangent)[0], cotangent.sum(tuple(range(len(rows)))), rtol=1e-5, atol=1e-6)


def test_vmap_and_plain_forms():
    vectors, like = normal(3, 4), normal(3, 5, 4, seed=1)

    def gradients():
        return jax.vmap(jax.grad(lambda v, x: jnp.sum(jnp.sin(spread(v, x)) * x)))(vectors, like)

    with plain_forms():
        expected = gradients()
    np.testing.assert_allclose(gradients(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("backend", "summed"), [("cpu", "dot_general"), ("gpu", "reduce_sum")])
def test_bfloat16_rows_are_summed_in_float32(backend, summed, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rows = jnp.ones((4096, 2), jnp.bfloat16)
    pull = jax.vjp(lambda v: spread(v, rows), jnp.zeros(2, jnp.bfloat16))[1]
    (total,) = [e.outvars[0].aval for e in jax.make_jaxpr(pull)(rows).eqns if e.primitive.name == summed]
    assert total.dtype == jnp.float32
    (found,) = pull(rows)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(np.float32), 4096)


def test_forward_mode_is_possible_but_in_the_fast_form_of_cpus(monkeypatch):
    vector, like = normal(4), normal(5, 4)
    forward = lambda: jax.jvp(lambda v: spread(v, like), (vector,), (vector,))[1]  # noqa: E731
    with pytest.raises(TypeError, match="forward-mode"):
        forward()
    with plain_forms():
        np.testing.assert_array_equal(forward(), jnp.broadcast_to(vector, like.shape))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_array_equal(forward(), jnp.broadcast_to(vector, like.shape))


def test_another_width_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 5\) aren't \(3,\)"):
        spread(jnp.zeros(3), jnp.zeros((3, 5)))
