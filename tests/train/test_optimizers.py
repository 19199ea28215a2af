"""Optimizers against plain NumPy, against optax on unstacked matrices, and with traced numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm.config import ConfigError, lift, lower
from lm.train.optimizers import Adafactor, AdamW, Lion, Muon, Optimizer, decay_mask, hidden_matrix, matrix

AXES = {
    "embed": ("vocab", "embed"),
    "block": {
        "query": ("layers", "embed", "heads", "head_dim"),
        "query_bias": ("layers", "heads", "head_dim"),
        "out": ("layers", "heads", "head_dim", "embed"),
        "up": ("layers", "embed", "mlp"),
        "norm": ("layers", "embed"),
    },
    "norm": ("embed",),
}
FEW = {"embed": ("vocab", "embed"), "out": ("layers", "heads", "head_dim", "embed"), "norm": ("layers", "embed")}
SIZES = {"vocab": 11, "embed": 6, "layers": 2, "heads": 2, "head_dim": 4, "mlp": 12}
OPTIMIZERS = [AdamW(), Lion(), Muon(), Muon(rms=None), Adafactor(factored_from=4), Adafactor(relative=False)]


def is_axes(value) -> bool:
    return isinstance(value, tuple)


def draw(seed: int, scale: float = 1.0, axes=AXES):
    rng = np.random.default_rng(seed)

    def values(axes):
        return np.float32(scale * rng.normal(size=[SIZES[name] for name in axes]))

    return jax.tree.map(values, axes, is_leaf=is_axes)


def descend(tx: optax.GradientTransformation, params, grads):
    """Parameters after one update for each tree of gradients; compiled once, for all layers and steps."""

    @jax.jit
    def run(params, grads):
        def body(carry, grad):
            params, state = carry
            updates, state = tx.update(grad, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), grads)[0][0]

    return run(params, jax.tree.map(lambda *leaves: np.stack(leaves), *grads))


def run(optimizer: Optimizer, params, grads, rate: float | None = None, axes=AXES):
    return descend(optimizer.make(optimizer.learning_rate if rate is None else rate, axes), params, grads)


MATRICES = {"query": (6, 8), "out": (8, 6), "up": (6, 12)}


def unstacked(tree, shapes):
    """The block's parameters as plain matrices and vectors, one of each a layer."""
    layers = range(SIZES["layers"])
    return {f"{name}{i}": tree["block"][name][i].reshape(shape) for name, shape in shapes.items() for i in layers}


def test_axes_tell_matrices_from_vectors():
    assert matrix(("layers", "embed", "heads", "head_dim")) == ((1,), (2, 3))
    assert matrix(("heads", "head_dim", "embed")) == ((0, 1), (2,))
    assert matrix(("layers", "expert", "embed", "mlp")) == ((2,), (3,))
    assert matrix(("layers", "embed", "expert")) == ((1,), (2,))  # a router's
    assert matrix(("layers", "expert", "mlp")) is None  # the biases of experts
    assert matrix(("layers", "kv_heads", "head_dim")) is None
    assert not hidden_matrix(("vocab", "embed")) and hidden_matrix(("embed", "mlp"))
    expected = {
        "embed": True,
        "block": {"query": True, "query_bias": False, "out": True, "up": True, "norm": False},
        "norm": False,
    }
    assert decay_mask(AXES) == expected


def test_adamw_equals_numpy():
    optimizer = AdamW(learning_rate=3e-3, b1=0.8, b2=0.97, eps=1e-6, weight_decay=0.3)
    params, grads = draw(0), [draw(seed) for seed in range(1, 6)]
    got = run(optimizer, params, grads)

    def reference(p, decayed, *history):
        p, m, v = np.float64(p), 0.0, 0.0
        for t, g in enumerate(map(np.float64, history), start=1):
            m, v = 0.8 * m + 0.2 * g, 0.97 * v + 0.03 * g * g
            step = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.97**t)) + 1e-6)
            p = p - 3e-3 * (step + (0.3 * p if decayed else 0.0))
        return p

    expected = jax.tree.map(reference, params, decay_mask(AXES), *grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), got, expected)


def test_lion_equals_numpy():
    optimizer = Lion(learning_rate=0.01, b1=0.7, b2=0.9, weight_decay=0.5)
    params, grads = draw(0), [draw(1), draw(2)]
    got = run(optimizer, params, grads)

    def reference(p, decayed, g1, g2):
        p, wd = np.float64(p), 0.5 if decayed else 0.0
        p = p - 0.01 * (np.sign(g1) + wd * p)
        return p - 0.01 * (np.sign(0.3 * np.float64(g2) + 0.7 * 0.1 * np.float64(g1)) + wd * p)

    expected = jax.tree.map(reference, params, decay_mask(AXES), *grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)


def test_adafactor_equals_optax_on_plain_matrices_layer_by_layer():
    shapes = {**MATRICES, "norm": (6,), "query_bias": (8,)}
    params, grads = draw(0, scale=0.3), [draw(1), draw(2), draw(3)]
    got = run(Adafactor(learning_rate=0.02, factored_from=6, weight_decay=0.0), params, grads)
    oracle = optax.adafactor(0.02, min_dim_size_to_factor=6)
    expected = descend(oracle, unstacked(params, shapes), [unstacked(grad, shapes) for grad in grads])
    for name, value in unstacked(got, shapes).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_adafactor_first_step_equals_the_paper():
    rng = np.random.default_rng(0)
    p, g = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    got = run(
        Adafactor(learning_rate=0.1, factored_from=2),
        {"w": jnp.float32(p)},
        [{"w": jnp.float32(g)}],
        axes={"w": ("embed", "mlp")},
    )
    v = np.outer((g**2).sum(1), (g**2).sum(0)) / (g**2).sum()
    u = g / np.sqrt(v)
    u /= max(1.0, np.sqrt((u**2).mean()))
    np.testing.assert_allclose(got["w"], p - 0.1 * np.sqrt((p**2).mean()) * u, rtol=1e-5)


def test_adafactor_keeps_rows_and_columns_only():
    state = jax.eval_shape(Adafactor(factored_from=6).make(0.1, AXES).init, draw(0))
    sizes = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert sizes < 0.5 * sum(leaf.size for leaf in jax.tree.leaves(draw(0)))


@pytest.mark.parametrize("rms", [0.2, None])
def test_muon_orthogonalises_each_layer_by_itself(rms):
    params, grad = jax.tree.map(np.zeros_like, draw(0)), draw(1)
    got = unstacked(run(Muon(rms=rms), params, [grad], rate=1.0), MATRICES)
    axes = dict.fromkeys(got, ("embed", "mlp"))
    alone = run(Muon(rms=rms), unstacked(params, MATRICES), [unstacked(grad, MATRICES)], rate=1.0, axes=axes)
    for name, update in got.items():
        # without XLA's optimisations (conftest) one product rounds differently from a batch of them, and each of five
        # iterations makes that up to 3.4445 times as large; with them the two agree to 2e-6
        np.testing.assert_allclose(update, alone[name], atol=np.finfo(np.float32).eps * 3.4445**5)
        fan_in, fan_out = update.shape
        scale = 0.2 * np.sqrt(max(fan_in, fan_out)) if rms else np.sqrt(max(1, fan_out / fan_in))
        singular = np.linalg.svd(np.asarray(update) / scale, compute_uv=False)
        assert singular.min() > 0.6 and singular.max() < 1.3  # the iteration is made to be this rough


def test_muon_leaves_embeddings_norms_and_biases_to_adamw():
    params, grads = draw(0, axes=FEW), [draw(seed, axes=FEW) for seed in range(1, 4)]
    muon = run(Muon(learning_rate=0.01, adam_rate=0.5, weight_decay=0.0), params, grads, axes=FEW)
    adam = run(AdamW(learning_rate=0.005, weight_decay=0.0), params, grads, axes=FEW)
    np.testing.assert_allclose(muon["norm"], adam["norm"], rtol=1e-6)
    np.testing.assert_allclose(muon["embed"], adam["embed"], rtol=1e-6)
    assert not np.allclose(muon["out"], adam["out"], atol=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_only_matrices_decay(optimizer: Optimizer):
    params = draw(0, axes=FEW)
    still = jax.tree.map(jnp.zeros_like, params)
    got = run(lower(optimizer, {"weight_decay": 0.5}), params, [still], rate=0.1, axes=FEW)

    def check(decayed, before, after):
        np.testing.assert_allclose(after, before * (0.95 if decayed else 1.0), rtol=1e-6)

    jax.tree.map(check, decay_mask(FEW), params, got)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_traced_numbers_give_what_constants_give(optimizer: Optimizer):
    params, grads = draw(0, axes=FEW), [draw(1, axes=FEW), draw(2, axes=FEW)]
    shape, values = lift(optimizer)
    assert "learning_rate" in values and "weight_decay" in values

    @jax.jit
    def step(values, params, state, grad):
        traced = lower(shape, values)
        updates, state = traced.make(traced.learning_rate, FEW).update(grad, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.jit(optimizer.make(0.0, FEW).init)(params)
    got = params
    for grad in grads:
        got, new = step(values, got, state, grad)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
        assert [x.dtype for x in jax.tree.leaves(new)] == [x.dtype for x in jax.tree.leaves(state)]
        state = new
    expected = run(optimizer, params, grads, axes=FEW)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, expected)
    halves = dict.fromkeys(values, 0.5)
    other = jax.eval_shape(lower(shape, halves).make(0.5, FEW).init, params)
    assert jax.tree.structure(other) == jax.tree.structure(state)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_state_axes_fit_every_array_of_the_state(optimizer: Optimizer):
    params = draw(0)
    state = jax.eval_shape(optimizer.make(0.0, AXES).init, params)
    axes = optimizer.state_axes(params, AXES)
    found = jax.tree.map(lambda leaf, names: names, state, axes)  # the trees fit
    assert found is not None
    sizes = {**SIZES, None: None}
    named = 0
    for leaf, names in zip(jax.tree.leaves(state), jax.tree.leaves(axes, is_leaf=is_axes_leaf), strict=True):
        assert len(names) == leaf.ndim
        assert all(name is None or sizes[name] == size for name, size in zip(names, leaf.shape, strict=True))
        named += any(names)
    assert named >= len(jax.tree.leaves(params))


def is_axes_leaf(value) -> bool:
    return isinstance(value, tuple) and not hasattr(value, "_fields") and all(isinstance(n, str | None) for n in value)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_reduces_a_quadratic(optimizer: Optimizer):
    target, params = draw(1, axes=FEW), draw(0, axes=FEW)

    def loss(params):
        return sum(jnp.sum((p - t) ** 2) for p, t in zip(*map(jax.tree.leaves, (params, target)), strict=True))

    tx = lower(optimizer, {"weight_decay": 0.0}).make(0.02, FEW)

    @jax.jit
    def minimise(params):
        def body(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), None, length=400)[0][0]

    before, after = jax.jit(lambda params: (loss(params), loss(minimise(params))))(params)
    assert after < 0.05 * before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AdamW(b2=1.0), "b2=1.0"),
        (lambda: AdamW(learning_rate=0.0), "learning_rate"),
        (lambda: AdamW(weight_decay=-0.1), "weight_decay"),
        (lambda: Muon(rms=0.0), "rms"),
        (lambda: Muon(iterations=0), "iterations"),
        (lambda: Adafactor(clip=0.0), "clip"),
    ],
)
def test_bad_values_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
