"""Norms, activations, feed-forward layers and residual forms against NumPy; declared axes and initial values."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from lm.config import ConfigError
from lm.nn import (
    GELU,
    MLP,
    Activation,
    Block,
    FeedForward,
    GatedMLP,
    LayerNorm,
    Norm,
    OutputNorm,
    Parallel,
    PostNorm,
    PreNorm,
    ReLU,
    Residual,
    RMSNorm,
    Sandwich,
    SharedParallel,
    Sigmoid,
    SiLU,
    SquaredReLU,
    Tanh,
    geglu,
    glu,
    mha,
    param,
    reglu,
    swiglu,
)
from lm.nn.aux import Aux
from lm.nn.linear import Linear
from tests.tiny import FF, MODELS, made

X = np.random.default_rng(0).normal(size=(2, 3, 8)) * 3 + 1


@pytest.mark.parametrize("norm", [RMSNorm, LayerNorm])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("zero_centered", [False, True])
def test_norms(norm: Any, bias: bool, zero_centered: bool) -> None:
    spec = norm(epsilon=0.1, bias=bias, zero_centered=zero_centered)
    layer = spec.build(8, rngs=nnx.Rngs(0))
    centred = X - X.mean(-1, keepdims=True) if norm is LayerNorm else X
    plain = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(layer(jnp.asarray(X, jnp.float32)), plain, atol=1e-5)  # starts as no scale and shift
    scale, shift = np.linspace(-1, 2, 8), np.linspace(3, 4, 8) if bias else np.zeros(8)
    layer.scale[...] = jnp.asarray(scale)
    if bias:
        layer.bias[...] = jnp.asarray(shift)
    expected = plain * (scale + zero_centered) + shift
    np.testing.assert_allclose(layer(jnp.asarray(X, jnp.float32)), expected, atol=1e-5)
    assert layer(jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16


def test_norms_are_taken_in_float32() -> None:
    x = jnp.full((1, 4096), 1.0, jnp.bfloat16).at[0, ::2].set(1.5)
    exact = np.asarray(x, np.float64)
    for norm, centre in ((RMSNorm(epsilon=0.0), 0.0), (LayerNorm(epsilon=0.0), exact.mean())):
        found = np.asarray(norm.build(4096, rngs=nnx.Rngs(0))(x), np.float64)
        expected = (exact - centre) / np.sqrt(((exact - centre) ** 2).mean())
        np.testing.assert_allclose(found, expected, rtol=2**-8)  # one rounding, at the end


ACTIVATIONS: list[tuple[Activation, Any]] = [
    (ReLU(), lambda x: np.maximum(x, 0)),
    (SquaredReLU(), lambda x: np.maximum(x, 0) ** 2),
    (SiLU(), lambda x: x * scipy.special.expit(x)),
    (Sigmoid(), scipy.special.expit),
    (Tanh(), np.tanh),
    (GELU(approximate=False), lambda x: x * scipy.special.ndtr(x)),
    (GELU(), lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
]


@pytest.mark.parametrize(("activation", "exact"), ACTIVATIONS, ids=[str(a) for a, _ in ACTIVATIONS])
def test_activations_and_the_layers_around_them(activation: Activation, exact: Any) -> None:
    np.testing.assert_allclose(activation(jnp.asarray(X, jnp.float32)), exact(X), atol=1e-5, rtol=1e-5)
    plain, gated = MLP(hidden=5, activation=activation, bias=True), GatedMLP(hidden=5, activation=activation, bias=True)
    for spec in (plain, gated):
        layer: Any = spec.build(8, rngs=nnx.Rngs(0))
        for index, linear in enumerate((layer.up, layer.down, getattr(layer, "gate", layer.up))):
            linear.bias[...] = jnp.linspace(-1, 1 + index, linear.bias[...].size)
        w = {
            n: (np.asarray(getattr(layer, n).weight[...]), np.asarray(getattr(layer, n).bias[...]))
            for n in ("up", "down")
        }
        up = X @ w["up"][0] + w["up"][1]
        hidden = exact(up) if spec is plain else exact(X @ layer.gate.weight[...] + layer.gate.bias[...]) * up
        y, aux = layer(jnp.asarray(X, jnp.float32))
        np.testing.assert_allclose(y, hidden @ w["down"][0] + w["down"][1], atol=1e-4, rtol=1e-4)
        assert aux == Aux()


def test_gated_forms_by_name() -> None:
    assert [form(7).activation for form in (glu, reglu, geglu, swiglu)] == [Sigmoid(), ReLU(), GELU(), SiLU()]
    with pytest.raises(ConfigError, match="hidden=0 must be at least 1"):
        swiglu(0)


def residual_forms() -> dict[str, tuple[Residual, Any]]:
    """Each form written out: (x, mix, ff, norm by place) -> y."""

    def pre(x: Any, m: Any, f: Any, n: Any) -> Any:
        x = x + m(n["mixer"](x))
        return x + f(n["ff"](x))

    def post(x: Any, m: Any, f: Any, n: Any) -> Any:
        x = n["mixer"](x + m(x))
        return n["ff"](x + f(x))

    def sandwich(x: Any, m: Any, f: Any, n: Any) -> Any:
        x = x + n["mixer_out"](m(n["mixer"](x)))
        return x + n["ff_out"](f(n["ff"](x)))

    def output(x: Any, m: Any, f: Any, n: Any) -> Any:
        x = x + n["mixer"](m(x))
        return x + n["ff"](f(x))

    def scaled(x: Any, m: Any, f: Any, n: Any) -> Any:
        x = x + 0.3 * m(n["mixer"](x))
        return x + 0.3 * f(n["ff"](x))

    return {
        "pre": (PreNorm(), pre),
        "scaled": (PreNorm(scale=0.3), scaled),
        "first unnormed": (PreNorm(unnormed=("mixer",)), lambda x, m, f, n: pre(x, m, f, n | {"mixer": lambda h: h})),
        "output": (OutputNorm(), output),
        "post": (PostNorm(), post),
        "sandwich": (Sandwich(), sandwich),
        "parallel": (Parallel(), lambda x, m, f, n: x + m(n["mixer"](x)) + f(n["ff"](x))),
        "shared": (SharedParallel(), lambda x, m, f, n: x + m(n["shared"](x)) + f(n["shared"](x))),
    }


@pytest.mark.parametrize("name", residual_forms())
@pytest.mark.parametrize("ff", [FF, None])
def test_residual_forms(name: str, ff: FeedForward | None) -> None:
    form, written = residual_forms()[name]
    norm: Norm = LayerNorm(bias=False)
    layer = Block(mixer=mha(2), ff=ff, norm=norm, residual=form).build(8, rngs=nnx.Rngs(0))
    graph, params = param.split(layer)
    rng = np.random.default_rng(1)
    layer = param.merge(graph, jax.tree.map(lambda p: p + jnp.asarray(rng.normal(size=p.shape), jnp.float32), params))
    x, at = jnp.asarray(X, jnp.float32), jnp.broadcast_to(jnp.arange(3), (2, 3))
    y, _, _ = layer(x, at, jnp.ones_like(at))

    def feed(h: jax.Array) -> jax.Array:
        return layer.ff(h)[0]

    norms = dict(layer.norms.items())
    if ff is None:  # nothing is added, and what would follow it isn't there
        assert not any("ff" in place for place in norms)
        norms |= {"ff": lambda h: h, "ff_out": lambda h: h}
    expected = written(
        x, lambda h: layer.mixer(h, at, jnp.ones_like(at))[0], jnp.zeros_like if ff is None else feed, norms
    )
    np.testing.assert_allclose(y, expected, atol=1e-4, rtol=1e-4)
    assert set(form.norms(layer.spec.parts)) == set(layer.norms.keys())


def test_without_norm() -> None:
    assert "norms" not in made(MODELS["t5, window"])[1]["blocks"]["0"]
    with pytest.raises(ConfigError, match="nothing for PostNorm to place"):
        Block(mixer=mha(2), norm=None, residual=PostNorm())


def test_linear_contracts_named_axes_and_starts_at_unit_variance() -> None:
    layer = Linear({"heads": 16, "head_dim": 32}, {"embed": 300}, scale=0.5, rngs=nnx.Rngs(0))
    weight = np.asarray(layer.weight[...])
    assert layer.weight.get_metadata()["axes"] == ("heads", "head_dim", "embed")
    assert weight.std() == pytest.approx(0.5 / math.sqrt(16 * 32), rel=0.01)
    assert abs(weight).max() < 2.3 * weight.std()  # cut at two standard deviations of what was cut
    x = np.random.default_rng(0).normal(size=(2, 3, 16, 32))
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), np.einsum("blhp,hpd->bld", x, weight), atol=1e-4)


def test_every_parameter_has_an_axis_for_each_dimension() -> None:
    for model in MODELS.values():
        module = nnx.eval_shape(lambda model=model: model.build(rngs=nnx.Rngs(params=0)))
        _, params = param.split(module)
        named = jax.tree.map(lambda p, names: len(p.shape) == len(names), params, param.axes(module))
        assert all(jax.tree.leaves(named))
        assert all(n[0] == "layers" for n in jax.tree.leaves(param.axes(module)["blocks"], is_leaf=is_names))


def is_names(value: Any) -> bool:
    return isinstance(value, tuple)


def test_the_layers_of_a_stack_are_drawn_apart() -> None:
    draw = jax.jit(lambda key: param.split(MODELS["mha"].build(rngs=nnx.Rngs(params=key)))[1])
    one, same, other = (draw(jax.random.key(seed)) for seed in (3, 3, 4))
    weight = np.asarray(one["blocks"]["0"]["mixer"]["query"]["weight"])
    assert weight.shape[0] == 2 and np.abs(weight[0] - weight[1]).mean() > 0.05
    np.testing.assert_array_equal(one["embedding"], same["embedding"])
    assert np.abs(one["embedding"] - other["embedding"]).mean() > 0.05
