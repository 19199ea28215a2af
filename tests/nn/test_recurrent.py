"""LSTM and GRU: PyTorch's, whatever documents and padding stand around them, with their definition's derivative."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import ConfigError
from lm.nn import GRU, LSTM, param
from lm.nn.kernels.platform import plain_forms
from lm.nn.recurrent import Recurrent

WIDTH, HIDDEN, LENGTH = 6, 8, 11
SPECS: dict[str, Recurrent] = {
    "lstm": LSTM(),
    "gru": GRU(),
    "lstm, out": LSTM(hidden=HIDDEN),
    "gru, out": GRU(hidden=HIDDEN),
}
named = pytest.mark.parametrize("name", SPECS)


def numbers(*shape: int, seed: int = 0, std: float = 0.7) -> jax.Array:
    return jnp.asarray(std * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def made(spec: Recurrent) -> tuple[Any, param.Params]:
    graph, params = param.split(spec.build(WIDTH, rngs=nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(params)
    return graph, jax.tree.unflatten(tree, [numbers(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


def run(graph: Any, params: param.Params, x: jax.Array, segments: Any = None, cache: Any = None) -> Any:
    segments = jnp.ones(x.shape[:2], jnp.int32) if segments is None else jnp.asarray(segments, jnp.int32)
    return param.merge(graph, params)(x, jnp.zeros_like(segments), segments, cache)


TORCH = {LSTM: ("LSTM", ("input", "forget", "candidate", "output")), GRU: ("GRU", ("reset", "update", "candidate"))}


@pytest.mark.parametrize("spec", [LSTM(hidden=HIDDEN), GRU(hidden=HIDDEN)], ids=["lstm", "gru"])
def test_it_is_pytorchs(spec: Recurrent) -> None:
    """In states and outputs, from a past that isn't empty. PyTorch joins the gates and gives each two biases."""
    torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
    kind, gates = TORCH[type(spec)]
    graph, params = made(spec)
    reference = getattr(torch.nn, kind)(WIDTH, HIDDEN, batch_first=True).double()
    zero = np.zeros(HIDDEN)
    joined = {
        "weight_ih_l0": [params["input"][g]["weight"].T for g in gates],
        "weight_hh_l0": [params["recurrent"][g]["weight"].T for g in gates],
        "bias_ih_l0": [params["input"][g]["bias"] for g in gates],
        "bias_hh_l0": [params["recurrent"][g].get("bias", zero) for g in gates],
    }
    assert sum("bias" in part for part in params["recurrent"].values()) == len(spec.biased)
    for name, parts in joined.items():
        getattr(reference, name).data = torch.tensor(np.concatenate(parts), dtype=torch.float64)
    x = numbers(3, LENGTH, WIDTH, seed=50)
    whole, state = reference(torch.tensor(np.asarray(x), dtype=torch.float64))
    expected = whole.detach().numpy() @ np.asarray(params["out"]["weight"], np.float64)
    np.testing.assert_allclose(run(graph, params, x)[0], expected, atol=1e-6, rtol=1e-6)

    cache = param.merge(graph, params).init_cache(3, LENGTH, jnp.float32)
    _, cache = run(graph, params, x[:, :5], cache=cache)
    y, cache = run(graph, params, x[:, 5:], cache=cache)
    np.testing.assert_allclose(y, expected[:, 5:], atol=1e-6, rtol=1e-6)
    last = state if spec.states == 2 else (state,)
    for vector, reference_vector in zip(np.moveaxis(cache.state, 1, 0), last, strict=True):
        np.testing.assert_allclose(vector, reference_vector[0].detach().numpy(), atol=1e-6)
    assert np.std(y) > 0.1


ROWS = np.array([[1, 1, 1, 2, 2, 2, 2, 3, 3, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], [1] * LENGTH])


@named
def test_the_backward_pass_is_the_derivative_of_the_definition(name: str) -> None:
    """Of all weights, the inputs and the past, with documents that end and padding on both sides."""
    graph, params = made(SPECS[name])
    x, probe = numbers(3, LENGTH, WIDTH, seed=50), numbers(3, LENGTH, WIDTH, seed=51)
    empty = param.merge(graph, params).init_cache(3, LENGTH, jnp.float32)
    shape = empty.state.shape

    def both(params: param.Params, x: jax.Array, state: jax.Array) -> jax.Array:
        cache = type(empty)({}, state, jnp.array([7, 0, 1]))  # the third row's document goes on
        y, after = run(graph, params, x, ROWS, cache)
        return jnp.sum(y * probe) + jnp.sum(jnp.cos(after.state))

    given = params, x, numbers(*shape, seed=52)
    found = jax.jit(jax.value_and_grad(both, argnums=(0, 1, 2)))(*given)
    with plain_forms():
        expected = jax.jit(jax.value_and_grad(both, argnums=(0, 1, 2)))(*given)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5)
    gradients = found[1]
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(gradients))
    real = np.abs(gradients[1]).max(-1) > 0
    assert not real[ROWS == 0].any() and real[2].all()
    assert (np.abs(gradients[2]).max((1, 2)) > 0).tolist() == [False, False, True]


@named
def test_a_document_is_what_it_is_alone(name: str) -> None:
    graph, params = made(SPECS[name])
    x = numbers(3, LENGTH, WIDTH, seed=50)
    packed, _ = run(graph, params, x, ROWS)
    for row, start, end in ((0, 0, 3), (0, 3, 7), (0, 7, 9), (1, 3, 11), (2, 0, 11)):
        alone, _ = run(graph, params, x[row : row + 1, start:end])
        np.testing.assert_allclose(packed[row, start:end], alone[0], atol=1e-6)
    assert np.abs(run(graph, params, x)[0] - packed)[0, 3:7].max() > 1e-2  # the same tokens after others


@named
def test_padding_leaves_no_trace(name: str) -> None:
    """Before, between and after the tokens of a document that is decoded in parts."""
    graph, params = made(SPECS[name])
    x = numbers(1, LENGTH, WIDTH, seed=50)
    segments = np.array([[0, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1]])
    real = segments[0] > 0
    alone, _ = run(graph, params, x[:, real])
    cache, found = param.merge(graph, params).init_cache(1, LENGTH, jnp.float32), []
    for part in (slice(0, 6), slice(6, 9), slice(9, 11)):
        y, cache = run(graph, params, x[:, part], segments[:, part], cache)
        found.append(y)
    np.testing.assert_allclose(np.concatenate(found, axis=1)[:, real], alone, atol=1e-6)


@named
def test_runs_side_by_side(name: str) -> None:
    graph, params = made(SPECS[name])
    x = numbers(2, LENGTH, WIDTH, seed=50)

    def loss(params: param.Params) -> jax.Array:
        return jnp.sum(jnp.sin(run(graph, params, x, ROWS[:2])[0]))

    two = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p]), params)
    found = jax.vmap(jax.grad(loss))(two)
    for i, scale in enumerate((1.0, 0.5)):
        one = jax.grad(loss)(jax.tree.map(lambda p, scale=scale: scale * p, params))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5), found, one)


@named
def test_in_bfloat16_the_state_stays_float32(name: str) -> None:
    graph, params = made(SPECS[name])
    x = numbers(2, LENGTH, WIDTH, seed=50)
    small = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    empty = param.merge(graph, params).init_cache(2, LENGTH, jnp.bfloat16)
    y, cache = run(graph, small, x.astype(jnp.bfloat16), cache=empty)
    assert y.dtype == jnp.bfloat16 and cache.state.dtype == jnp.float32
    np.testing.assert_allclose(y.astype(jnp.float32), run(graph, params, x)[0], atol=0.15)
    gradient = jax.grad(lambda p: jnp.sum(run(graph, p, x.astype(jnp.bfloat16))[0].astype(jnp.float32) ** 2))(small)
    assert all(g.dtype == jnp.bfloat16 for g in jax.tree.leaves(gradient))


def test_how_they_begin() -> None:
    layer = LSTM().build(WIDTH, rngs=nnx.Rngs(0))
    assert {gate: float(layer.input[gate].bias[0]) for gate in LSTM.gates} == {
        "input": 0, "forget": 1, "candidate": 0, "output": 0,
    }  # fmt: skip
    assert layer.out is None and GRU(hidden=WIDTH).build(WIDTH, rngs=nnx.Rngs(0)).out is not None
    with pytest.raises(ConfigError, match="hidden=0 must be at least 1"):
        GRU(hidden=0)
