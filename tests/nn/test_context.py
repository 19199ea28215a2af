"""A fixed window of words and a bag of them, against their definitions token by token."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.config import ConfigError
from lm.models import Decoder
from lm.nn import BagOfWords, Block, Direct, FixedWindow, Mixer, Plain, param
from lm.nn.context import sums

WIDTH, LENGTH = 5, 10
ROWS = np.array([[1, 1, 1, 1, 2, 2, 2, 3, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]])
WINDOWS: dict[str, FixedWindow] = {
    "window": FixedWindow(tokens=3),
    "one token": FixedWindow(tokens=1, hidden=7),
    "direct": FixedWindow(tokens=4, hidden=7, direct=Direct()),
    "longer than any row": FixedWindow(tokens=12, direct=Direct()),
}
MIXERS: dict[str, Mixer] = {**WINDOWS, "bag": BagOfWords()}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def made(spec: Mixer, width: int = WIDTH) -> tuple[Any, param.Params]:
    graph, params = param.split(spec.build(width, rngs=nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(params)
    return graph, jax.tree.unflatten(tree, [jnp.asarray(numbers(*x.shape, seed=i)) for i, x in enumerate(leaves)])


def run(graph: Any, params: param.Params, x: Any, segments: np.ndarray, cache: Any = None) -> Any:
    return param.merge(graph, params)(jnp.asarray(x), jnp.zeros_like(segments), jnp.asarray(segments), cache)


@pytest.mark.parametrize("name", WINDOWS)
def test_the_networks_equation(name: str) -> None:
    """U tanh(d + H x) + W x for each token, with x joined by hand."""
    spec = WINDOWS[name]
    graph, params = made(spec)
    x = numbers(2, LENGTH, WIDTH, seed=50)
    found, _ = run(graph, params, x, ROWS)

    def matrix(part: str) -> np.ndarray:
        return np.concatenate([np.asarray(params[part]["places"][str(i)]["weight"]) for i in range(spec.tokens)])

    bias = np.asarray(params["up"]["places"]["0"]["bias"])
    assert sum("bias" in place for place in params["up"]["places"].values()) == 1
    for row, t in np.argwhere(ROWS > 0):
        back = [t - i for i in range(spec.tokens)]
        inside = [s for s in back if s >= 0 and ROWS[row, s] == ROWS[row, t]]
        joined = np.concatenate([x[row, s] if s in inside else np.zeros(WIDTH) for s in back])
        y = np.tanh(bias + joined @ matrix("up"))
        y = y @ np.asarray(params["down"]["weight"]) if spec.hidden else y
        y = y + joined @ matrix("direct") if spec.direct else y
        np.testing.assert_allclose(found[row, t], y, atol=1e-5)


def test_a_bag_is_the_mean_so_far() -> None:
    x = numbers(2, LENGTH, WIDTH, seed=50)
    found, _ = run(*made(BagOfWords()), x, ROWS)
    for row, t in np.argwhere(ROWS > 0):
        same = [s for s in range(t + 1) if ROWS[row, s] == ROWS[row, t]]
        np.testing.assert_allclose(found[row, t], x[row, same].mean(0), atol=1e-6)


def test_a_sum_knows_nothing_of_what_was_before_a_reset() -> None:
    x = np.ones((1, 6, 1), np.float32)
    x[0, :3, 0] = (np.nan, 1e30, -3)
    resets = jnp.asarray([[False, False, False, True, False, False]])
    assert sums(jnp.asarray(x), resets)[0, 3:, 0].tolist() == [1, 2, 3]
    assert np.isnan(sums(jnp.asarray(x), resets)[0, :3]).all()


@pytest.mark.parametrize("name", MIXERS)
def test_decoding_in_parts_with_padding(name: str) -> None:
    graph, params = made(MIXERS[name])
    x = numbers(2, LENGTH, WIDTH, seed=50)
    segments = np.array([[0, 0, 1, 1, 1, 2, 2, 2, 2, 2], [1] * LENGTH])
    whole, _ = run(graph, params, x, segments)
    for parts in ([4, 6], [1] * LENGTH, [2, 1, 5, 2], [3, 3, 4]):
        cache, found, start = param.merge(graph, params).init_cache(2, LENGTH, jnp.float32), [], 0
        for size in parts:
            part = slice(start, start + size)
            y, cache = run(graph, params, x[:, part], segments[:, part], cache)
            found.append(y)
            start += size
        real = segments > 0
        np.testing.assert_allclose(np.concatenate(found, axis=1)[real], whole[real], atol=1e-5)


def test_the_cache_is_of_one_size() -> None:
    for spec in MIXERS.values():
        graph, params = made(spec)
        sizes = [
            sum(leaf.size for leaf in jax.tree.leaves(param.merge(graph, params).init_cache(1, length, jnp.float32)))
            for length in (1, 1000)
        ]
        assert sizes[0] == sizes[1] == spec.cost(WIDTH, 1000).cache + 1  # and the document


def test_a_decoder_of_one_such_block_is_bengios_network() -> None:
    """Logits = U tanh(d + H (C(w_t), .., C(w_t-n+1))), from the tables themselves."""
    block = Block(mixer=FixedWindow(tokens=3), norm=None, residual=Plain())
    model = Decoder(vocab=9, width=WIDTH, layers=1, block=block, norm=None, tied=False)
    graph, params = made_model(model)
    tokens = np.array([[4, 2, 7, 7, 1, 0]])
    found = param.merge(graph, params)(jnp.asarray(tokens))
    places = params["blocks"]["0"]["mixer"]["up"]["places"]
    H = np.concatenate([np.asarray(places[str(i)]["weight"][0]) for i in range(3)])
    d, C, U = np.asarray(places["0"]["bias"][0]), np.asarray(params["embedding"]), np.asarray(params["unembedding"])
    vectors = np.concatenate([np.zeros((2, WIDTH)), C[tokens[0]]])
    for t in range(6):
        x = vectors[t : t + 3][::-1].reshape(-1)
        np.testing.assert_allclose(found[0, t], U @ np.tanh(d + x @ H), atol=1e-5)
    assert model.cost(6).params == 2 * 9 * WIDTH + 3 * WIDTH * WIDTH + WIDTH


def made_model(model: Decoder) -> tuple[Any, param.Params]:
    graph, params = param.split(model.build(rngs=nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(params)
    return graph, jax.tree.unflatten(tree, [jnp.asarray(numbers(*x.shape, seed=i)) for i, x in enumerate(leaves)])


def test_joined_words_start_at_unit_variance() -> None:
    layer = FixedWindow(tokens=16).build(64, rngs=nnx.Rngs(0))
    y = layer.up(jnp.asarray(numbers(4, 50, 16 * 64).reshape(4, 50, 16, 64)))
    assert float(jnp.std(y)) == pytest.approx(1, rel=0.1)


def test_misfits_are_refused() -> None:
    with pytest.raises(ConfigError, match="tokens=0 must be at least 1: this token is one of them"):
        FixedWindow(tokens=0)
    with pytest.raises(ConfigError, match="hidden=0 must be at least 1"):
        FixedWindow(tokens=2, hidden=0)
