"""The chunked forms under the recurrent mixers, each against its recurrence written down token by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.models.flops import program_flops
from lm.nn.ssm import decayed
from lm.nn.ssm.chunks import balanced
from lm.nn.ssm.selective import selective_scan
from lm.nn.ssm.triangular import flops, solve

B, L, G, H, N, P = 2, 13, 2, 4, 3, 5
CHUNKS = [1, 2, 4, 5, 13, 64]


def drawn(length: int = L, n: int = N) -> dict[str, jax.Array]:
    """Decays from none to almost all, documents that begin inside and at the borders of chunks, padding at the end."""
    rng = np.random.default_rng(0)
    shapes = {"q": (G, n), "k": (G, n), "v": (H, P), "beta": (H,)}
    values = {name: rng.normal(size=(B, length, *shape)) for name, shape in shapes.items()}
    values["k"] /= np.linalg.norm(values["k"], axis=-1, keepdims=True)
    values["beta"] = 1 / (1 + np.exp(-values["beta"]))
    values["log_decay"] = -np.exp(rng.normal(-1, 2, size=(B, length, H)))
    values["state"] = rng.normal(size=(B, H, n, P))
    values["log_decay"][1, -2:], values["k"][1, -2:], values["beta"][1, -2:] = 0, 0, 0
    resets = np.zeros((B, length), bool)
    resets[0, [4, 6, 7]] = True
    resets[1, 0] = True
    return {name: jnp.asarray(value, jnp.float32) for name, value in values.items()} | {"resets": jnp.asarray(resets)}


def by_token(x: dict[str, jax.Array], delta: bool) -> tuple[jax.Array, jax.Array]:
    """S_t = a_t S_{t-1} + k_t u_t^T, y_t = S_t^T q_t."""
    q, k = (jnp.repeat(x[name], H // G, axis=2) for name in ("q", "k"))
    state, outputs = x["state"], []
    for t in range(q.shape[1]):
        state = jnp.where(x["resets"][:, t, None, None, None], 0.0, state)
        state = state * jnp.exp(x["log_decay"][:, t])[..., None, None]
        u = x["v"][:, t]
        if delta:
            u = x["beta"][:, t, :, None] * (u - (state * k[:, t, :, :, None]).sum(2))
        state = state + k[:, t, :, :, None] * u[:, :, None]
        outputs.append((state * q[:, t, :, :, None]).sum(2))
    return jnp.stack(outputs, axis=1), state


def in_chunks(x: dict[str, jax.Array], delta: bool, chunk: int) -> tuple[jax.Array, jax.Array]:
    q, k, v, beta, log_decay, resets, state = (
        x[name] for name in ("q", "k", "v", "beta", "log_decay", "resets", "state")
    )
    if delta:
        return decayed.decayed_delta(q, k, v, beta, log_decay, resets, state, chunk=chunk)
    return decayed.decayed(q, k, v, log_decay, resets, state, chunk=chunk)


def gradients(function: Callable[..., tuple[jax.Array, jax.Array]], x: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Of a number that every output and the last state have a part in."""

    def number(real: dict[str, jax.Array]) -> jax.Array:
        y, state = function(x | real)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)) + jnp.sum(jnp.sin(state))

    return jax.jit(jax.grad(number))({name: a for name, a in x.items() if jnp.issubdtype(a.dtype, jnp.floating)})


@pytest.mark.parametrize("delta", [False, True], ids=["decayed", "delta"])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunks_are_the_recurrence(delta: bool, chunk: int) -> None:
    x = drawn()
    found, expected = jax.jit(lambda x: in_chunks(x, delta, chunk))(x), by_token(x, delta)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=3e-6 * float(jnp.abs(b).max()))
    changed = gradients(lambda x: in_chunks(x, delta, chunk), x)
    for name, b in gradients(lambda x: by_token(x, delta), x).items():
        np.testing.assert_allclose(changed[name], b, atol=1e-5 * float(jnp.abs(b).max()), err_msg=name)
        assert np.abs(b).max() > 0.1 or (name == "beta" and not delta)


@pytest.mark.parametrize("delta", [False, True], ids=["decayed", "delta"])
def test_in_bfloat16_the_state_is_float32_and_small_additions_to_it_last(delta: bool) -> None:
    """A key that gives its value a thousand times: in bfloat16 a sum stops growing at 256 times what is added."""
    ones = jnp.ones((1, 1000, 1, 1), jnp.bfloat16)
    state, flat = jnp.zeros((1, 1, 1, 1)), jnp.zeros((1, 1000, 1))
    small = {"beta": jnp.full((1, 1000, 1), 1e-3), "v": ones} if delta else {"beta": flat, "v": ones}
    x = {"q": ones, "k": ones, "log_decay": flat, "resets": flat[..., 0] > 0, "state": state, **small}
    y, after = jax.jit(lambda x: in_chunks(x, delta, 1))(x)
    assert y.dtype == jnp.bfloat16 and after.dtype == jnp.float32
    expected = 1 - (1 - 1e-3) ** 1000 if delta else 1000
    assert float(after[0, 0, 0, 0]) == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("delta", [False, True], ids=["decayed", "delta"])
@pytest.mark.parametrize(("length", "chunk"), [(1, 8), (12, 4), (13, 4), (13, 64)])
def test_the_products_are_counted(delta: bool, length: int, chunk: int) -> None:
    x = {name: a[:1] for name, a in drawn(length=max(length, 8)).items()}
    x = {name: a if name == "state" else a[:, :length] for name, a in x.items()}
    expected = decayed.cost(length, chunk, G, H, N, P, delta=delta)
    assert program_flops(lambda x: in_chunks(x, delta, chunk), x) == expected.flops
    assert expected.cache == x["state"].size


def test_chunks_are_as_few_and_as_small_as_can_be() -> None:
    for length in range(1, 40):
        for most in range(1, 45):
            count, size = balanced(length, most)
            assert size <= most and count == -(-length // most)
            assert 0 <= count * size - length < count


# ---- the selective scan ----------------------------------------------------------------------------------------


D = 6


def selective(length: int = L) -> dict[str, jax.Array]:
    rng = np.random.default_rng(1)
    shapes = {"x": (D,), "dt": (D,), "b": (N,), "c": (N,)}
    values = {name: rng.normal(size=(B, length, *shape)) for name, shape in shapes.items()}
    values["dt"] = np.exp(values["dt"])
    values["dt"][1, -2:] = 0
    values["a"], values["state"] = -np.exp(rng.normal(size=(N, D))), rng.normal(size=(B, N, D))
    resets = np.zeros((B, length), bool)
    resets[0, [4, 6, 7]] = resets[1, 0] = True
    return {name: jnp.asarray(value, jnp.float32) for name, value in values.items()} | {"resets": jnp.asarray(resets)}


def selective_by_token(x: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    h, outputs = x["state"], []
    for t in range(x["x"].shape[1]):
        h = jnp.where(x["resets"][:, t, None, None], 0.0, h)
        dt, u, b, c = (x[name][:, t] for name in ("dt", "x", "b", "c"))
        h = jnp.exp(dt[:, None] * x["a"]) * h + (dt * u)[:, None] * b[:, :, None]
        outputs.append(jnp.einsum("BND,BN->BD", h, c))
    return jnp.stack(outputs, axis=1), h


def scanned(x: dict[str, jax.Array], chunk: int, parallel: bool) -> tuple[jax.Array, jax.Array]:
    inputs = (x[name] for name in ("x", "dt", "a", "b", "c", "resets", "state"))
    return selective_scan(*inputs, chunk=chunk, parallel=parallel)


@pytest.mark.parametrize("parallel", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_selective_scan_is_the_recurrence(parallel: bool, chunk: int) -> None:
    x = selective()
    found, expected = jax.jit(lambda x: scanned(x, chunk, parallel))(x), selective_by_token(x)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6 * float(jnp.abs(b).max()))
    changed = gradients(lambda x: scanned(x, chunk, parallel), x)
    for name, b in gradients(selective_by_token, x).items():
        np.testing.assert_allclose(changed[name], b, atol=1e-5 * float(jnp.abs(b).max()), err_msg=name)
        assert np.abs(b).max() > 0.1


# ---- memory ----------------------------------------------------------------------------------------------------


def largest(function: Any, *args: Any) -> int:
    """The most numbers of any array of a program, inner programs included."""

    def of(jaxpr: Any) -> int:
        sizes = [v.aval.size for e in jaxpr.eqns for v in e.outvars]
        for e in jaxpr.eqns:
            for value in e.params.values():
                for item in value if isinstance(value, tuple | list) else (value,):
                    inner = getattr(item, "jaxpr", item)
                    sizes += [of(inner)] if hasattr(inner, "eqns") else []
        return max(sizes, default=0)

    return of(jax.make_jaxpr(function)(*args).jaxpr)


@pytest.mark.parametrize("parallel", [False, True], ids=["one by one", "at once"])
def test_training_never_holds_a_state_for_every_token(parallel: bool) -> None:
    length, chunk = 1024, 16
    x = jax.eval_shape(lambda: selective(length))
    found = largest(lambda x: gradients(lambda x: scanned(x, chunk, parallel), x), x)
    every_token, borders, inputs = length * B * N * D, length // chunk * B * N * D, length * B * D
    assert max(borders, inputs) <= found < every_token / 2


@pytest.mark.parametrize("delta", [False, True], ids=["decayed", "delta"])
def test_training_never_holds_the_scores_of_all_chunks(delta: bool) -> None:
    length, chunk = 2048, 64
    x = jax.eval_shape(lambda: drawn(length))
    found = largest(lambda x: gradients(lambda x: in_chunks(x, delta, chunk), x), x)
    assert found < length * chunk * B * H / 4


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 64])
def test_a_triangular_system_is_solved(size: int) -> None:
    rng = np.random.default_rng(size)
    lower, wanted = np.tril(rng.normal(size=(2, 3, size, size)) / np.sqrt(size), -1), rng.normal(size=(2, 3, size, 4))
    a, w = (jnp.asarray(x, jnp.float32) for x in (lower, wanted))
    expected = np.linalg.solve(np.eye(size) + lower, wanted)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(solve(a, w), expected, atol=1e-5 * scale)
    assert program_flops(solve, a[0, 0], w[0, 0]) == flops(size, 4)

    def by_library(a: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(jnp.linalg.solve(jnp.eye(size) + a, w) / scale))

    found = jax.grad(lambda a, w: jnp.sum(jnp.sin(solve(a, w) / scale)), argnums=(0, 1))(a, w)
    for x, y in zip(found, jax.grad(by_library, argnums=(0, 1))(a, w), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5 * float(np.abs(y).max()))
