"""The linear layer's two forms agree, under every transform a model uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.nn.kernels.linear import linear


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("rows", "inner", "outer"),
    [((3, 5), (8,), (4, 2)), ((3, 5), (4, 2), (7,)), ((), (6,), (3,)), ((1, 1), (1,), (1,)), ((2, 3, 5), (2, 3), ())],
)
def test_values_and_gradients_of_both_forms_are_numpys(rows, inner, outer):
    x, w, dy = normal(*rows, *inner), normal(*inner, *outer, seed=1), normal(*rows, *outer, seed=2)
    n = len(inner)
    axes_rows = list(range(len(rows)))
    expected = (
        np.tensordot(x, w, n),
        np.tensordot(dy, np.moveaxis(w, range(n), range(-n, 0)), len(outer)),
        np.tensordot(x, dy, (axes_rows, axes_rows)),
    )
    for plain in (True, False):
        y, pull = jax.vjp(lambda x, w, plain=plain: linear(x, w, contract=n, plain=plain), x, w)
        for got, right in zip((y, *pull(dy)), expected, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-5)


def test_scan_checkpoint_and_vmap_of_the_gradient():
    """Two seeds of a three-layer model, scanned over checkpointed layers."""
    x, w = normal(2, 4, 5, 8), normal(2, 3, 8, 8, seed=1) / 3

    def loss(w_NDD, x, plain):
        body = jax.checkpoint(lambda x, w: (jnp.tanh(linear(x, w, contract=1, plain=plain)), None))
        return jax.lax.scan(body, x, w_NDD)[0].sum()

    forms = [jax.jit(jax.vmap(lambda w, x, p=plain: jax.grad(loss)(w, x, p)))(w, x) for plain in (True, False)]
    assert np.abs(forms[0]).max() > 0
    np.testing.assert_allclose(forms[1], forms[0], rtol=1e-5, atol=1e-5)


def test_the_result_has_the_type_of_x_and_each_gradient_that_of_its_input():
    x, w = jnp.asarray(normal(3, 64), jnp.bfloat16), normal(64, 2, seed=1)
    for plain in (True, False):
        y, pull = jax.vjp(lambda x, w, plain=plain: linear(x, w, contract=1, plain=plain), x, w)
        assert y.dtype == jnp.bfloat16
        assert [d.dtype for d in pull(y)] == [jnp.bfloat16, jnp.float32]
        np.testing.assert_allclose(y.astype(np.float32), np.asarray(x, np.float32) @ w, rtol=0.02, atol=0.1)


def test_the_platform_chooses_and_forward_mode_stays_possible(monkeypatch):
    x, w = jnp.asarray(normal(3, 4)), jnp.asarray(normal(4, 2, seed=1))
    text = lambda: str(jax.make_jaxpr(jax.grad(lambda w: linear(x, w, contract=1).sum()))(w))  # noqa: E731
    assert "optimization_barrier" in text()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    assert "optimization_barrier" not in text()
    y, dy = jax.jvp(lambda w: linear(x, w, contract=1), (w,), (w,))
    np.testing.assert_allclose(y, dy)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"last 1 axes of x \(3, 4\) aren't the first 1 of w \(5, 2\)"):
        linear(jnp.asarray(normal(3, 4)), jnp.asarray(normal(5, 2)), contract=1)
