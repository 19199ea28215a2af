"""Recurrent mixers as layers: documents, padding, caches of constant size, initial values, types."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import ConfigError
from lm.nn import GatedDeltaNet, Mamba, Mamba2, Mixer, Retention, RMSNorm, param
from lm.nn.kernels.platform import plain_forms
from lm.train.optimizers import decay_mask, hidden_matrices

WIDTH, LENGTH = 16, 24
SPECS: dict[str, Mixer] = {
    "mamba": Mamba(state=4, dt_rank=3, chunk=7, norm=RMSNorm()),
    "mamba-2": Mamba2(heads=4, head_width=6, groups=2, state=5, chunk=7),
    "gated delta net": GatedDeltaNet(heads=4, key_heads=2, key_width=6, value_width=5, chunk=7),
    "retention": Retention(heads=4, chunk=7),
}
pytestmark = pytest.mark.core
names = pytest.mark.parametrize("name", SPECS)


def built(name: str, std: float = 0.4) -> tuple[Any, param.Params]:
    """The layer's graph, and weights drawn wide around their initial values."""
    graph, params = param.split(SPECS[name].build(WIDTH, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    return graph, jax.tree.map(lambda p: p + jnp.asarray(std * rng.normal(size=p.shape), jnp.float32), params)


def compiled(name: str) -> tuple[Any, Any]:
    """The layer, and its compiled call `(x, positions, segments, cache=None) -> (y, cache)`."""
    graph, params = built(name)
    layer: Any = param.merge(graph, params)
    call = jax.jit(lambda params, *given: param.merge(graph, params)(*given))
    return layer, lambda *given: call(params, *given)


def rows(*segments: list[int], seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x, positions, segments. Positions go on after padding."""
    array = np.array(segments, np.int32)
    positions = np.zeros_like(array)
    for row, of in zip(positions, array, strict=True):
        for document in np.unique(of):
            row[of == document] = np.arange((of == document).sum())
    x = np.random.default_rng(seed).normal(size=(*array.shape, WIDTH))
    return jnp.asarray(x, jnp.float32), jnp.asarray(positions), jnp.asarray(array)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(np.abs(expected).max()))


@names
def test_documents_packed_in_a_row_are_documents_alone(name: str) -> None:
    _, call = compiled(name)
    cuts = [0, 3, 4, 13, LENGTH - 2, LENGTH]
    row = np.zeros(LENGTH, int)
    for document, (start, end) in enumerate(itertools.pairwise(cuts[:-1])):
        row[start:end] = document + 1
    row[1] *= -1  # a prefix is of the same document
    x, positions, segments = rows(row.tolist())
    positions = jnp.asarray(np.concatenate([np.arange(b - a) for a, b in itertools.pairwise(cuts)]))[None]
    packed, _ = call(x, positions, segments)
    for start, end in itertools.pairwise(cuts[:-1]):
        part = slice(start, end)
        alone, _ = call(x[:, part], positions[:, part], jnp.ones((1, end - start), jnp.int32))
        close(packed[:, part], alone)
        assert np.std(alone) > 0.05
    assert np.isfinite(packed).all()


@names
def test_padding_anywhere_in_what_a_cache_is_fed_leaves_no_trace(name: str) -> None:
    """On the left of a prompt, on its right, in a turn of a conversation that is shorter than another row's."""
    layer, call = compiled(name)
    x, positions, segments = rows(
        [0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    )
    cache, found = layer.init_cache(2, LENGTH, jnp.float32), []
    for part in (slice(0, 5), slice(5, 8), slice(8, 9), slice(9, 13), slice(13, 16)):
        y, cache = call(x[:, part], positions[:, part], segments[:, part], cache)
        found.append(y)
    real = np.asarray(segments) > 0
    for row in range(2):
        kept = real[row]
        alone, _ = call(*(a[row : row + 1, kept] for a in (x, positions, segments)))
        close(np.concatenate(found, axis=1)[row, kept], alone[0])
    assert cache.document.tolist() == [2, 1]


@names
def test_a_cache_of_constant_size_with_a_float32_state(name: str) -> None:
    graph, params = built(name)
    layer: Any = param.merge(graph, params)
    short, long = (layer.init_cache(3, length, jnp.bfloat16) for length in (2, 10_000))
    assert jax.tree.map(jnp.shape, short) == jax.tree.map(jnp.shape, long)
    assert short.state.dtype == jnp.float32 and all(t.dtype == jnp.bfloat16 for t in short.tails.values())
    sizes = {SPECS[name].cost(WIDTH, length).cache for length in (1, 2, 10_000)}
    assert sizes == {(short.state.size + sum(t.size for t in short.tails.values())) // 3}
    x, positions, segments = rows([1] * 6)
    small = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    cast: Any = param.merge(graph, small)
    y, cache = cast(x.astype(jnp.bfloat16), positions, segments, layer.init_cache(1, 0, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16 and jax.tree.map(jnp.result_type, cache) == jax.tree.map(jnp.result_type, short)
    np.testing.assert_allclose(y.astype(jnp.float32), layer(x, positions, segments)[0], atol=0.1, rtol=0.1)


@names
def test_runs_side_by_side_are_runs_alone_and_gradients_are_those_of_the_plain_forms(name: str) -> None:
    graph, params = built(name, 0.2)  # wider, and the gradients of delta nets move by 3e-5 if x does by 1e-7
    both = jax.tree.map(lambda p: jnp.stack([p, 0.7 * p]), params)
    x, positions, segments = rows([1] * 9 + [2] * 12 + [0] * 3, [1] * 24)

    def loss(params: param.Params, x: jax.Array) -> jax.Array:
        layer: Any = param.merge(graph, params)
        y = layer(x, positions, segments)[0]
        return jnp.sum(y * jnp.cos(jnp.arange(y.size)).reshape(y.shape) * (segments > 0)[..., None])

    grad = jax.grad(loss, argnums=(0, 1))
    together = jax.jit(jax.vmap(grad, in_axes=(0, None)))(both, x)
    for run in range(2):
        with plain_forms():
            alone = jax.jit(lambda p: grad(p, x))(jax.tree.map(lambda p, run=run: p[run], both))

        def same(a: jax.Array, b: jax.Array, run: int = run) -> None:
            assert np.isfinite(a).all() and np.abs(b).max() > 1e-3
            np.testing.assert_allclose(a[run], b, atol=3e-5 * float(np.abs(b).max()))

        jax.tree.map(same, together, alone)


# ---- what a layer begins as ------------------------------------------------------------------------------------


def test_decays_start_in_the_papers_ranges() -> None:
    wide = {
        "mamba": Mamba(state=4),
        "mamba-2": Mamba2(heads=512, head_width=1, state=1),
        "gated delta net": GatedDeltaNet(heads=512, key_heads=1, key_width=1, value_width=1),
    }
    for name, spec in wide.items():
        layer: Any = spec.build(256, rngs=nnx.Rngs(0))
        dt = np.log(np.asarray(jax.nn.softplus(layer.dt_bias[...])))
        assert math.log(1e-3) - 1e-3 <= dt.min() < math.log(2e-3) and math.log(5e-2) < dt.max() <= math.log(0.1) + 1e-3
        assert dt.mean() == pytest.approx(math.log(1e-2), abs=0.2)
        if name != "gated delta net":
            assert (np.asarray(layer.D[...]) == 1).all()
        a = np.exp(np.asarray(layer.A_log[...]))
        if name == "mamba":
            np.testing.assert_allclose(a, np.broadcast_to([1, 2, 3, 4], (512, 4)), rtol=1e-6)
        else:
            assert a.min() >= 1 and a.max() <= 16 and a.mean() == pytest.approx(8.5, abs=0.7)


@names
def test_weight_decay_and_matrix_rules_leave_decays_and_filters_alone(name: str) -> None:
    module = SPECS[name].build(WIDTH, rngs=nnx.Rngs(0))
    axes = param.axes(module)
    decayed = {jax.tree_util.keystr(p, simple=True, separator="."): v for p, v in _leaves(decay_mask(axes))}
    matrices = {jax.tree_util.keystr(p, simple=True, separator="."): v for p, v in _leaves(hidden_matrices(axes))}
    for path, yes in decayed.items():
        assert yes == path.endswith(("weight", "kernel")), path
        assert matrices[path] == path.endswith("weight"), path


def _leaves(tree: Any) -> list[Any]:
    return jax.tree_util.tree_leaves_with_path(tree)


def test_each_head_of_retention_forgets_half_as_fast_as_the_one_before() -> None:
    gamma = np.exp(Retention(heads=3).log_decay())
    np.testing.assert_allclose(gamma, 1 - 2.0 ** (-5 - np.arange(3)), rtol=1e-6)
    assert Retention(heads=2, span=None).log_decay().tolist() == [0, 0]
    assert Retention(heads=4).widths(16) == (4, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mamba(state=0), "Mamba: state=0 must be at least 1"),
        (lambda: Mamba(dt_rank=0), "dt_rank=0 must be at least 1, or None for width / 16"),
        (lambda: Mamba2(heads=4, groups=3), "Mamba2: groups=3 must divide heads=4"),
        (lambda: Mamba2(heads=4, dt_least=0.2, dt_most=0.1), "dt_least=0.2 must be at least 0 and below dt_most=0.1"),
        (lambda: Mamba2(heads=4, chunk=0), "Mamba2: chunk=0 must be at least 1"),
        (lambda: GatedDeltaNet(heads=4, key_heads=3), "GatedDeltaNet: key_heads=3 must divide heads=4"),
        (lambda: Retention(heads=3).cost(16, 1), "heads=3 must divide width=16, or give key_width"),
        (lambda: Retention(heads=4, span=1.0), "span=1.0 must be above 1 token"),
        (lambda: Retention(heads=4, value_width=0), "Retention: value_width=0 must be at least 1"),
        (lambda: Retention(heads=16).cost(16, 1), "RoPE turns pairs"),
    ],
)
def test_misfits_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
