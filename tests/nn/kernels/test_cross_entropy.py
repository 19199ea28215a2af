"""The loss computed chunk by chunk equals the plain one, in values and gradients, and keeps no logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.nn.kernels.cross_entropy import LARGE, cross_entropy

quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # compiles in half the time


def inputs(shape, V=50, D=16, dtype=np.float32):
    rng = np.random.default_rng(0)
    normal = lambda *s: rng.standard_normal(s, dtype=np.float32)  # noqa: E731
    h, w, bias = normal(*shape, D), normal(V, D), normal(V)
    targets = rng.integers(0, V, shape).astype(np.int32)
    weights = rng.choice([0.0, 1.0, 0.5], shape).astype(np.float32)
    return jnp.asarray(h, dtype), jnp.asarray(w, dtype), *map(jnp.asarray, (bias, targets, weights))


def plain(h, w, bias, targets, weights, z_loss, smoothing, softcap):
    """The definition by log_softmax: (loss, nats, correct)."""
    logits = h.astype(jnp.float32) @ w.astype(jnp.float32).T + bias
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    log_p = jax.nn.log_softmax(logits)
    truth = jax.nn.one_hot(targets, logits.shape[-1])
    nats = -(log_p * truth).sum(-1)
    smoothed = -(log_p * ((1 - smoothing) * truth + smoothing / logits.shape[-1])).sum(-1)
    loss = (weights * (smoothed + z_loss * jax.nn.logsumexp(logits, axis=-1) ** 2)).sum()
    return loss, nats, logits.argmax(-1) == targets


@pytest.mark.parametrize(
    ("shape", "chunk", "softcap"),
    [
        ((2, 13), 5, None),
        ((2, 13), 4, 3.0),
        ((3, 2, 8), 4, None),
        ((7,), 100, None),
        ((7,), 3, None),
        ((), 1, None),
        ((2, 13), None, 3.0),
    ],
)
def test_chunked_equals_plain_in_values_and_all_gradients(shape, chunk, softcap):
    """chunk=None at this small vocabulary is the form without chunks."""
    h, w, bias, targets, weights = inputs(shape)
    arguments = h, w, bias, weights, 0.01, 0.1

    @quick_jit
    def both(*arguments):
        def chunked(h, w, bias, weights, z_loss, smoothing):
            options = dict(softcap=softcap, z_loss=z_loss, label_smoothing=smoothing, chunk=chunk)
            result = cross_entropy(h, w, targets, weights, bias_V=bias, **options)
            return 0.3 * result.loss, result[1:]

        def reference(h, w, bias, weights, z_loss, smoothing):
            loss, *rest = plain(h, w, bias, targets, weights, z_loss, smoothing, softcap)
            return 0.3 * loss, tuple(rest)

        every = tuple(range(len(arguments)))
        return [jax.value_and_grad(f, every, has_aux=True)(*arguments) for f in (chunked, reference)], chunked(
            *arguments
        )

    (got, expected), forward_only = both(*arguments)
    assert got[0][1][0].shape == shape
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(b).max())))
    for a, b in zip(jax.tree.leaves(forward_only), jax.tree.leaves(got[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_no_logits_of_all_tokens_exist_when_the_vocabulary_is_large():
    """In neither pass, in or out of a scan: the largest array of the program is a chunk's."""
    B, L, D, V = 4, 1000, 8, LARGE
    h, w = jax.ShapeDtypeStruct((B, L, D), jnp.float32), jax.ShapeDtypeStruct((V, D), jnp.float32)
    ids, weights = jax.ShapeDtypeStruct((B, L), jnp.int32), jax.ShapeDtypeStruct((B, L), jnp.float32)

    def largest(V):
        w = jax.ShapeDtypeStruct((V, D), jnp.float32)
        jaxpr = jax.make_jaxpr(jax.value_and_grad(lambda h, w, t, m: cross_entropy(h, w, t, m).loss, (0, 1)))(
            h, w, ids, weights
        )
        return max(size(jaxpr.jaxpr))

    def size(jaxpr):
        for equation in jaxpr.eqns:
            yield from (v.aval.size for v in equation.outvars)
            for inner in jax.core.jaxprs_in_params(equation.params):
                yield from size(inner)

    assert largest(V) <= B * L * V / 3
    assert largest(V - 1) == B * L * (V - 1)  # the count sees what it should
    compiled = (
        jax.jit(jax.grad(lambda h, w, t, m: cross_entropy(h, w, t, m).loss, (0, 1))).lower(h, w, ids, weights).compile()
    )
    assert compiled.memory_analysis().temp_size_in_bytes < B * L * V * 4


def test_bfloat16_inputs_are_accumulated_in_float32():
    h, w, _, targets, weights = inputs((2, 300), V=64, D=32, dtype=jnp.bfloat16)
    weights = jnp.ones_like(weights)

    @quick_jit
    def both(h, w):
        chunked = lambda h, w: cross_entropy(h, w, targets, weights, chunk=7).loss  # noqa: E731
        exact = lambda h, w: plain(h, w, 0.0, targets, weights, 0.0, 0.0, None)[0]  # noqa: E731
        wide = h.astype(jnp.float32), w.astype(jnp.float32)
        return jax.value_and_grad(chunked, (0, 1))(h, w), jax.value_and_grad(exact, (0, 1))(*wide)

    (loss, (dh, dw)), (right_loss, (right_dh, right_dw)) = both(h, w)
    assert loss.dtype == jnp.float32 and dh.dtype == dw.dtype == jnp.bfloat16
    np.testing.assert_allclose(loss, right_loss, rtol=1e-5)
    # one rounding of the summands and one of the sum; 43 sums in bfloat16 would be off by several percent
    np.testing.assert_allclose(dw.astype(np.float32), right_dw, atol=0.005 * np.abs(right_dw).max())
    np.testing.assert_allclose(dh.astype(np.float32), right_dh, atol=0.01 * np.abs(right_dh).max())


def test_vmap_over_runs_equals_one_after_another():
    h, w, _, targets, weights = inputs((2, 5))
    seeds = jnp.stack([w, 2 * w])
    gradient = jax.grad(lambda w: cross_entropy(h, w, targets, weights, chunk=2).loss)
    together, apart = quick_jit(lambda ws: (jax.vmap(gradient)(ws), jax.lax.map(gradient, ws)))(seeds)
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)


def test_reports_carry_no_gradient():
    h, w, _, targets, weights = inputs((2, 5))
    for chunk in (None, 2):
        gradient = jax.grad(lambda h, c=chunk: cross_entropy(h, w, targets, weights, chunk=c).nats.sum())(h)
        assert np.all(gradient == 0)
