"""Patterns are what attention really does: they reproduce each layer's output, and a softmax written out in NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm import sharding
from lm.config import config, lift
from lm.interpret import attention_patterns
from lm.interpret.patterns import watched
from lm.models import Decoder
from lm.nn import Block, param
from lm.nn.attention import AttentionLayer
from lm.nn.cost import Cost
from lm.nn.mixer import Mixer, MixerLayer
from lm.train import Training
from lm.train.step import Program
from tests.tiny import BLOCKS, LENGTH, MODELS, VOCAB, WIDTH, attention, made, packed

BATCH = {name: jnp.asarray(x) for name, x in packed(rows=3).items()}
IDS = BATCH["positions"], BATCH["segments"]
SAME = BATCH["segments"][:, :, None] == BATCH["segments"][:, None, :]

# between them every residual form, kind of position, window, norm of queries, cap, grouping and a pattern of blocks
NAMES = ["gqa", "pattern", "qk norm with bias, softcap", "rope, partial", "alibi", "alibi, window", "t5", "learned"]


def seen(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """The patterns, and (layer, what it read, what it gave) of each layer of attention in a pass without them."""
    original, found = AttentionLayer.__call__, []
    graph, params = made(model)

    def recording(self: AttentionLayer, x: Any, *others: Any) -> Any:
        y, cache = original(self, x, *others)
        found.append((self, x, y))
        return y, cache

    def both(params: Any) -> Any:
        built = param.merge(graph, params)
        patterns = attention_patterns(built, BATCH["tokens"], *IDS)
        x = built.embed(BATCH["tokens"], BATCH["positions"])
        with monkeypatch.context() as patch:
            patch.setattr(AttentionLayer, "__call__", recording)
            for block in built.layers():
                x, _, _ = block(x, *IDS)
        return patterns, found

    return jax.jit(both)(params)


def by_definition(layer: AttentionLayer, x: jax.Array) -> np.ndarray:
    """The probabilities [B, H, L, S] of a layer: a query and a head at a time, in float64."""
    spec, (B, L) = layer.spec, x.shape[:2]
    q, k = layer.query(x), layer.key(x)
    if layer.query_norm is not None and layer.key_norm is not None:
        q, k = layer.query_norm(q), layer.key_norm(k)
    q, k = (np.asarray(layer.position.rotate(y, IDS[0]), np.float64) for y in (q, k))
    bias = layer.position.bias
    added = np.broadcast_to(0.0 if bias is None else bias(IDS[0], IDS[0]), (B, spec.heads, L, L))
    positions, segments = (np.asarray(ids) for ids in IDS)
    out = np.zeros((B, spec.heads, L, L))
    for b, h, i in np.ndindex(*out.shape[:3]):
        scores = k[b, :, h // (spec.heads // spec.kv_heads)] @ q[b, i, h] * (spec.scale or layer.head_width**-0.5)
        if spec.softcap is not None:
            scores = spec.softcap * np.tanh(scores / spec.softcap)
        distance = positions[b, i] - positions[b]
        allowed = (segments[b] == segments[b, i]) & (distance >= 0) & (distance < (spec.mask.window or LENGTH))
        weight = np.where(allowed, np.exp(scores + added[b, h, i] - (scores + added[b, h, i])[allowed].max()), 0)
        out[b, h, i] = weight / weight.sum()
    return out


@pytest.mark.parametrize("name", NAMES)
def test_a_pattern_is_what_the_layer_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]
    patterns, layers = seen(model, monkeypatch)
    assert len(patterns) == len(layers) == model.layers
    for index, (pattern, (layer, read, gave)) in enumerate(zip(patterns, layers, strict=True)):
        assert pattern is not None and pattern.dtype == jnp.float32
        spec = attention(model, index)
        assert layer.spec == spec
        values = np.repeat(np.asarray(layer.value(read)), spec.heads // spec.kv_heads, axis=2)
        mixed = np.einsum("BHLS,BSHP->BLHP", pattern, values)
        np.testing.assert_allclose(layer.out(jnp.asarray(mixed)), gave, atol=1e-4)
        np.testing.assert_allclose(pattern, by_definition(layer, read), atol=1e-5)
        np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-5)
        i, j = np.indices((LENGTH, LENGTH))
        near = (j <= i) & (i - j < (spec.mask.window or LENGTH))
        allowed = np.broadcast_to((np.asarray(SAME) & near)[:, None], pattern.shape)
        assert np.all(np.asarray(pattern)[~allowed] == 0) and np.all(np.asarray(pattern)[allowed] > 0)
        assert np.std(np.asarray(pattern)[:, :, -3]) > 0.01  # no two models could share it by being uniform


def test_without_segments_a_row_is_one_document() -> None:
    graph, params = made(MODELS["gqa"])
    one, at = jnp.ones_like(BATCH["tokens"]), jnp.broadcast_to(jnp.arange(LENGTH), BATCH["tokens"].shape)
    model = param.merge(graph, params)
    for plain, told in zip(*(attention_patterns(model, BATCH["tokens"], *ids) for ids in ((), (at, one))), strict=True):
        np.testing.assert_array_equal(plain, told)
        assert np.all(np.asarray(plain)[:, :, -1, 0] > 0)


def test_program_apply_on_a_mesh_gives_the_same() -> None:
    graph, params = made(MODELS["gqa"])
    expected = jax.jit(lambda p: attention_patterns(param.merge(graph, p), BATCH["tokens"], *IDS))(params)
    program = Program(MODELS["gqa"], lift(Training(steps=4))[0], sharding.layout("fsdp=2,tensor=2"))
    found = program.apply(attention_patterns)(params, BATCH["tokens"], *IDS)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class ShiftLayer(MixerLayer):
    """Hands each token the one before: no head reads anything."""

    def __call__(self, x: jax.Array, positions: jax.Array, segments: jax.Array, cache: Any = None) -> Any:
        return jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0))), cache


@config
class Shift(Mixer):
    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> MixerLayer:
        return ShiftLayer()

    def cost(self, width: int, length: int) -> Cost:
        return Cost()


def test_a_mixer_without_heads_has_no_pattern() -> None:
    model = Decoder(vocab=VOCAB, width=WIDTH, layers=3, block=(Block(mixer=Shift()), BLOCKS["mha"]))
    graph, params = made(model)
    found = attention_patterns(param.merge(graph, params), BATCH["tokens"], *IDS)
    assert [pattern is None for pattern in found] == [True, False, True]


def test_watching_leaves_the_layer_as_it_was() -> None:
    graph, params = made(MODELS["rope, partial"])
    block = param.merge(graph, params).layers()[0]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, LENGTH, WIDTH)), jnp.float32)
    read, y = watched(block, x, *IDS)
    assert isinstance(block.mixer, AttentionLayer)
    np.testing.assert_array_equal(read, x)  # with norms after its parts, a mixer reads the stream itself
    np.testing.assert_array_equal(y, block(x, *IDS)[0])
