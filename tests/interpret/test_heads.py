"""Scores of heads: by hand, against loops, and on a circuit built by hand whose heads are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import sharding
from lm.config import ConfigError, lift, replace
from lm.data import TaskData
from lm.data.synthetic.repeats import RepeatedSequence
from lm.errors import UserError
from lm.interpret import Heads, copying, entropy, prefix_matching, previous_token
from lm.models import Decoder
from lm.nn import Block, LayerNorm, Learned, Mask, RMSNorm, Sandwich, gqa, mha, param
from lm.train import Recording, Run, Training
from lm.train.load import load_run
from lm.train.loop import Machine, train
from lm.train.rows import read
from lm.train.step import Program
from tests.interpret.test_patterns import Shift
from tests.tiny import BLOCKS, HEADS, MODELS, VOCAB, WIDTH, made

DATA = TaskData(task=RepeatedSequence(alphabet=12, length=14, shortest=3, longest=6), batch=4, test=8)


def causal(pattern: np.ndarray) -> np.ndarray:
    pattern = np.tril(pattern)
    return pattern / pattern.sum(-1, keepdims=True)


def program(model: Decoder) -> Program:
    return Program(model, lift(Training(steps=4))[0], sharding.layout())


# ---- scores of patterns --------------------------------------------------------------------------------------


def test_scores_against_loops() -> None:
    rng = np.random.default_rng(0)
    pattern, tokens = causal(rng.uniform(size=(3, 2, 7, 7))), rng.integers(0, 4, (3, 7))
    for h in range(2):
        matched, before, wide = [], [], []
        for b, i in np.ndindex(3, 7):
            occurrences = [j for j in range(i) if tokens[b, j] == tokens[b, i]]
            if occurrences:
                matched.append(sum(pattern[b, h, i, j + 1] for j in occurrences))
            if i:
                before.append(pattern[b, h, i, i - 1])
                p = pattern[b, h, i, : i + 1]
                wide.append(-(p * np.log(p)).sum() / np.log(i + 1))
        assert 0 < len(matched) < 21
        np.testing.assert_allclose(
            prefix_matching(jnp.asarray(pattern), jnp.asarray(tokens))[h], np.mean(matched), 1e-5
        )
        np.testing.assert_allclose(previous_token(jnp.asarray(pattern))[h], np.mean(before), 1e-5)
        np.testing.assert_allclose(entropy(jnp.asarray(pattern))[h], np.mean(wide), 1e-5)


def test_heads_that_do_one_thing() -> None:
    """On a block of three that is repeated: an induction head, one for the previous token, and one that sees all."""
    tokens = jnp.asarray([[0, 5, 6, 7, 5, 6, 7]])
    induction = np.zeros((7, 7))
    induction[range(7), [0, 0, 0, 0, 2, 3, 4]] = 1
    previous = np.eye(7, k=-1)
    previous[0, 0] = 1
    pattern = jnp.asarray(np.stack([induction, previous, causal(np.ones((7, 7)))])[None])
    np.testing.assert_allclose(prefix_matching(pattern, tokens), [1, 0, np.mean([1 / 5, 1 / 6, 1 / 7])], atol=1e-6)
    np.testing.assert_allclose(previous_token(pattern)[:2], [1 / 6, 1])
    np.testing.assert_allclose(entropy(pattern), [0, 0, 1], atol=1e-6)


def test_entropy_counts_the_keys_a_query_may_see() -> None:
    i, j = np.indices((8, 8))
    for mask in (Mask(window=3), Mask(causal=False), Mask(causal=False, window=2)):
        near = (abs(i - j) < (mask.window or 8)) & ((j <= i) | (not mask.causal))
        uniform = jnp.asarray(near / near.sum(-1, keepdims=True))[None, None]
        np.testing.assert_allclose(entropy(uniform, mask), 1, atol=1e-6)
    # a key that is never read is still seen: half of four is half the entropy
    half = jnp.asarray(np.repeat([[0.5, 0.5, 0, 0]], 4, axis=0))[None, None]
    np.testing.assert_allclose(entropy(half, Mask(causal=False)), 0.5, atol=1e-6)


def test_what_is_not_defined_is_no_number() -> None:
    alone = jnp.eye(5)[None, None]
    assert np.isnan(entropy(alone, Mask(window=1))).all()
    assert np.isnan(prefix_matching(alone, jnp.arange(5)[None])).all()


# ---- copying -------------------------------------------------------------------------------------------------


def test_copying_against_the_product_of_matrices() -> None:
    """Grouped heads between RMS norms: embedding, scale, OV, scale and unembedding, in float64."""
    model = replace(MODELS["gqa"], {"tied": False, "block.norm": RMSNorm(), "norm": RMSNorm()})
    graph, params = made(model)
    found = jax.jit(lambda p: copying(param.merge(graph, p), jnp.arange(VOCAB)))(params)
    p: Any = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    mixer, shares = p["blocks"]["0"]["mixer"], []
    for layer, h in np.ndindex(model.layers, HEADS):
        x = p["embedding"]
        x = x / np.sqrt((x**2).mean(1, keepdims=True)) * p["blocks"]["0"]["norms"]["mixer"]["scale"][layer]
        y = x @ mixer["value"]["weight"][layer][:, h // 2] @ mixer["out"]["weight"][layer][h]
        logits = y * p["norm"]["scale"] @ p["unembedding"].T
        shares.append((logits.argmax(1) == np.arange(VOCAB)).mean())
    assert len(set(shares)) > 1
    np.testing.assert_allclose(np.stack(found).ravel(), shares, atol=1e-6)


@pytest.mark.parametrize("name", ["gqa", "rope, partial", "alibi", "t5", "mqa, no position"])
def test_what_one_head_copies_is_what_its_layer_writes(name: str) -> None:
    """A row of one token: all that a mixer of one head writes is that token's, whatever the residual form."""
    norm = None if name.startswith("mqa") else LayerNorm()
    mixer = replace(BLOCKS[name].mixer, {"heads": 1, "kv_heads": 1})
    model = replace(MODELS[name], {"block.mixer": mixer, "block.norm": norm or RMSNorm(), "norm": norm, "layers": 1})
    graph, params = made(model)

    def by_passes(params: Any) -> jax.Array:
        built = param.merge(graph, params)
        block, tokens = built.layers()[0], jnp.arange(VOCAB)
        x, at, one = built.embedding[...][:, None], tokens[:, None] * 0, tokens[:, None] * 0 + 1
        norms = {n: lambda h: h for n in block.spec.residual.norms(block.spec.parts)} | dict(block.norms.items())
        first = "shared" if "shared" in norms else "mixer"
        y, _ = block.mixer(x if name == "rope, partial" else norms[first](x), at, one)
        raised = built.logits(built.finish(y)) - built.logits(built.finish(0 * y))
        return (raised[:, 0].argmax(-1) == tokens).mean()

    found, expected = jax.jit(lambda p: (copying(param.merge(graph, p), jnp.arange(VOCAB)), by_passes(p)))(params)
    np.testing.assert_allclose(found[0], [expected], atol=1e-6)


def test_a_head_of_identities_copies_and_its_opposite_does_not() -> None:
    mixer = mha(2, head_width=WIDTH, position=None)
    for norm, residual in ((RMSNorm(), BLOCKS["mha"].residual), (LayerNorm(), Sandwich())):
        block = Block(mixer=mixer, norm=norm, residual=residual)
        model = Decoder(vocab=WIDTH, width=WIDTH, layers=1, block=block, norm=norm)
        graph, params = made(model)
        one = jnp.eye(WIDTH)
        weights: Any = params["blocks"]["0"]["mixer"]
        weights["value"]["weight"] = jnp.stack([one, one], axis=1)[None]
        weights["out"]["weight"] = jnp.stack([one, -one])[None]
        params["embedding"] = 5 * one
        params = jax.tree_util.tree_map_with_path(
            lambda path, x: jnp.ones_like(x) if "scale" in str(path[-1]) else x, params
        )
        (found,) = copying(param.merge(graph, params), jnp.arange(WIDTH))
        np.testing.assert_array_equal(found, [1, 0])


# ---- the measure ---------------------------------------------------------------------------------------------


def circuit(vocab: int, length: int) -> tuple[Decoder, param.Params]:
    """An induction circuit written down: the stream holds the token, its position, the token before it and the
    prediction, one after another. The first layer fetches the token before, by position; the second looks for its own
    token among those, and copies what it finds there to the prediction (Elhage et al. 2021)."""
    width = 3 * vocab + length
    token, place, before, said = np.split(np.arange(width), [vocab, vocab + length, 2 * vocab + length])
    mixer = mha(1, head_width=width, position=None, scale=50.0)
    model = Decoder(
        vocab=vocab,
        width=width,
        layers=2,
        block=Block(mixer=mixer, norm=None),
        position=Learned(length=length),
        norm=None,
        tied=False,
    )
    q, k, v, out = np.zeros((4, 2, width, width), np.float32)
    q[0, place[1:], np.arange(length - 1)] = k[0, place, np.arange(length)] = 1
    v[0, token, np.arange(vocab)] = out[0, np.arange(vocab), before] = 1
    q[1, token, np.arange(vocab)] = k[1, before, np.arange(vocab)] = 1
    v[1, token, np.arange(vocab)] = out[1, np.arange(vocab), said] = 1
    one = np.eye(width, dtype=np.float32)
    weights = {"query": q[:, :, None], "key": k[:, :, None], "value": v[:, :, None], "out": out[:, None]}
    return model, {
        "embedding": one[token],
        "unembedding": one[said],
        "position": {"table": one[place]},
        "blocks": {"0": {"mixer": {name: {"weight": w} for name, w in weights.items()}}},
    }


def test_a_circuit_written_down_is_recovered() -> None:
    heads = Heads(rows=4, length=4)
    model, params = circuit(vocab=10, length=9)
    numbers, details = heads.prepare(program(model), DATA)(params)
    assert set(numbers) == {"prefix_matching", "previous_token", "copying", "entropy"}
    for name, first, second in (("prefix_matching", 0, 1), ("previous_token", 1, None), ("copying", 0, 1)):
        np.testing.assert_allclose(numbers[name], 1, atol=1e-4)
        np.testing.assert_allclose(details[name][0], [first], atol=1e-4)
        assert second is None or np.allclose(details[name][1], [second], atol=1e-4)
    assert details["previous_token"][1][0] < 0.5
    assert details["entropy"][0][0] < 1e-4 < details["entropy"][1][0]
    np.testing.assert_allclose(numbers["entropy"], np.mean(details["entropy"]))


def test_the_rows_are_the_same_blocks_twice_for_every_run() -> None:
    heads = Heads(rows=5, length=6, symbols=9)
    tokens = heads.tokens(40)
    assert tokens.shape == (5, 13) and np.all(tokens[:, 0] == 0)
    np.testing.assert_array_equal(tokens[:, 1:7], tokens[:, 7:])
    assert all(len(set(row)) == 6 for row in tokens[:, 1:7].tolist())
    assert set(tokens[:, 1:].ravel()) == set(range(1, 10))
    assert len({tuple(row) for row in tokens.tolist()}) == 5
    np.testing.assert_array_equal(heads.tokens(10), tokens)
    assert Heads(length=20).tokens(40).max() == 39


def test_scores_are_the_functions_by_layer_and_head() -> None:
    """On a model with a layer that has no heads, and one whose heads see a single token."""
    blocks = (Block(mixer=Shift()), BLOCKS["window of one"], BLOCKS["window"])
    model = Decoder(vocab=VOCAB, width=WIDTH, layers=3, block=blocks)
    _, params = made(model)
    numbers, details = Heads(rows=3, length=5).prepare(program(model), DATA)(params)
    assert all(found[0] is None and len(found[1]) == len(found[2]) == HEADS for found in details.values())
    assert details["entropy"][1] == [None] * HEADS and details["previous_token"][1] == [0.0] * HEADS
    np.testing.assert_allclose(numbers["entropy"], np.mean(details["entropy"][2]))
    np.testing.assert_allclose(numbers["previous_token"], max(details["previous_token"][2]))
    alone = replace(model, {"layers": 2, "block": blocks[:2]})
    assert "entropy" not in Heads(rows=3, length=5).prepare(program(alone), DATA)(made(alone)[1]).numbers


def test_what_makes_no_sense_is_refused() -> None:
    compiled = program(MODELS["learned"])
    with pytest.raises(UserError, match=r"16 learned positions, 33 were asked for: 1 \+ 2 x length=16; lower length"):
        Heads().prepare(compiled, DATA)
    Heads(length=7).prepare(compiled, DATA)
    with pytest.raises(UserError, match="a block of length=40 different tokens can't be made of 39; lower length"):
        Heads(length=40).prepare(compiled, DATA)
    with pytest.raises(UserError, match="symbols=40 besides the mark, but the model has 40 tokens"):
        Heads(symbols=40).prepare(compiled, DATA)
    with pytest.raises(UserError, match="no layer of attention"):
        Heads().prepare(program(Decoder(vocab=VOCAB, width=WIDTH, layers=1, block=Block(mixer=Shift()))), DATA)
    with pytest.raises(ConfigError, match="length=1 at least 2"):
        Heads(length=1)


def test_a_run_leaves_rows_and_details(tmp_path: Path) -> None:
    heads = Heads(rows=4, length=5)
    run = Run(
        model=Decoder(vocab=DATA.task.vocab, width=WIDTH, layers=2, block=Block(mixer=gqa(2, 1))),
        data=DATA,
        train=Training(steps=4),
        record=Recording(every=1, evaluations=1, measures=(heads,)),
    )
    train(run, tmp_path, Machine(quiet=True))
    rows = [row for row in read(tmp_path / "rows.jsonl") if row["split"] == "heads"]
    details = read(tmp_path / "details.jsonl")
    assert [row["step"] for row in rows] == [row["step"] for row in details] == [1, 2, 4]
    assert rows[0]["prefix_matching"] != rows[-1]["prefix_matching"]
    assert np.shape(details[-1]["copying"]) == (2, 2)
    loaded = load_run(tmp_path)
    again = heads.prepare(loaded.program, replace(DATA, {"seed": 3}))(loaded.params)
    for name, value in again.numbers.items():
        np.testing.assert_allclose(rows[-1][name], value, rtol=1e-5)
