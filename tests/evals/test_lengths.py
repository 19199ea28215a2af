"""Losses at other lengths are means over the same text, cut into longer or shorter rows, of the same weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError, lift, replace
from lm.data import Data, TaskData, Text, load
from lm.data.synthetic import Dyck
from lm.errors import UserError
from lm.evals import Lengths
from lm.evals.lengths import with_scaling
from lm.models import Decoder
from lm.nn import Learned, LinearScaling, RoPE, YaRN, param
from lm.sharding import layout
from lm.train import Training
from lm.train.step import Program
from tests.tiny import BLOCKS, attention, made

LENGTHS = (8, 16, 32)
TRAINED = 8


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Documents of 10 to 240 bytes, so that some rows lie in one document and others don't."""
    folder, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    for i in range(24):
        (folder / f"{i:02d}.txt").write_text("".join(rng.choice(list("abcdef \n"), size=10 * (i + 1))))
    return Data(corpus=Text(path=str(folder)), length=TRAINED, batch=3, heldout=0.4)


@cache
def model(**fields: Any) -> Decoder:
    return Decoder(vocab=256, width=16, layers=2, **({"block": BLOCKS["gqa"]} | fields))


def program(spec: Decoder) -> Program:
    return Program(spec, lift(Training(steps=1))[0], layout())


def found(measure: Lengths, spec: Decoder, data: Data) -> Any:
    return measure.prepare(program(spec), data)(made(spec, std=0.7)[1])


def whole_rows(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets [n 32] of the held-out rows that no document begins in: `eot` is the first token of each."""
    dataset = load(replace(data, {"length": LENGTHS[-1], "batch": 5}))
    parts = [tuple(batch[name] for name in ("tokens", "targets", "weights")) for batch in dataset.heldout_batches()]
    rows = [(t, g) for part in parts for t, g, w in zip(*part, strict=True) if w.all()]
    kept = [(t, g) for t, g in rows if not (t[1:] == dataset.tokenizer.eot).any()]
    assert 4 < len(kept) < len(rows)
    return np.stack([t for t, _ in kept]), np.stack([g for _, g in kept])


def losses(spec: Decoder, weights: Decoder, tokens: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-ln p [n L] by the model's own call. weights: the model whose parameters they are."""
    module = param.merge(made(spec)[0], made(weights, std=0.7)[1])
    logp = np.asarray(jax.nn.log_softmax(module(jnp.asarray(tokens))), np.float64)
    return -np.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]


def check(result: Any, length: int, expected: np.ndarray) -> None:
    assert result.numbers[f"loss_{length}"] == pytest.approx(expected.mean(), rel=1e-5)
    np.testing.assert_allclose(result.details[f"loss_{length}"], expected.mean(0), rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_each_length_is_asked_for_the_same_tokens(text: Data, batch: int) -> None:
    """Whatever the batch, which the number of rows isn't a multiple of."""
    tokens, targets = whole_rows(text)
    result = found(Lengths(lengths=LENGTHS), model(), replace(text, {"batch": batch}))
    for length in LENGTHS:
        pieces = tokens.reshape(-1, length), targets.reshape(-1, length)
        check(result, length, losses(model(), model(), *pieces))
    assert len({round(result.numbers[f"loss_{length}"], 4) for length in LENGTHS}) == 3


def test_so_many_rows_spread_over_the_text(text: Data) -> None:
    tokens, targets = whole_rows(text)
    chosen = [i * len(tokens) // 3 for i in range(3)]
    result = found(Lengths(lengths=LENGTHS, rows=3), model(), text)
    check(result, 32, losses(model(), model(), tokens[chosen], targets[chosen]))


def test_a_length_without_positions_has_no_number(text: Data) -> None:
    """And none that isn't finite: it is missing, as if it hadn't been asked for."""
    result = found(Lengths(lengths=LENGTHS), model(position=Learned(length=16)), text)
    assert result.numbers.keys() == {"loss_8", "loss_16"}
    assert result.details.keys() == {"loss_8", "loss_16"} and all(np.isfinite(list(result.numbers.values())))


@pytest.mark.parametrize(
    "scaling", [YaRN(factor=1.0, original_length=TRAINED, beta_fast=2.0), LinearScaling(factor=1.0)]
)
def test_a_scaling_is_of_the_same_weights_by_as_much_as_the_rows_are_longer(text: Data, scaling: Any) -> None:
    tokens, targets = whole_rows(text)
    plain, result = (found(Lengths(lengths=LENGTHS, scaling=s), model(), text) for s in (None, scaling))
    for length in LENGTHS:
        position = RoPE(scaling=replace(scaling, {"factor": length / TRAINED}))
        spec = replace(model(), {"block.mixer.position": position})
        check(result, length, losses(spec, model(), tokens.reshape(-1, length), targets.reshape(-1, length)))
    assert result.numbers["loss_8"] == pytest.approx(plain.numbers["loss_8"], rel=1e-6)
    assert abs(result.numbers["loss_32"] - plain.numbers["loss_32"]) > 1e-3


def test_a_model_without_rope_has_no_numbers_under_a_scaling(text: Data) -> None:
    spec = replace(model(), {"block.mixer.position": None})
    result = found(Lengths(lengths=LENGTHS, scaling=LinearScaling(factor=1.0)), spec, text)
    assert result.numbers == {} and result.details == {}


def test_every_rope_is_scaled_and_nothing_else() -> None:
    scaling, none = LinearScaling(factor=3.0), replace(BLOCKS["gqa"], {"mixer.position": None})
    spec = Decoder(vocab=256, width=16, layers=3, block=(BLOCKS["gqa"], BLOCKS["mamba-2"], none))
    changed = with_scaling(spec, scaling)
    assert attention(changed).position == RoPE(scaling=scaling) and changed.pattern[1:] == spec.pattern[1:]
    assert with_scaling(changed, None) == spec != changed


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"lengths": ()}, r"lengths=\(\)"),
        ({"lengths": (1, 8)}, "at least 2"),
        ({"lengths": (8, 12)}, "divide the longest"),
        ({"lengths": (8,), "rows": 0}, "rows=0"),
    ],
)
def test_refuses(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Lengths(**fields)


def test_what_has_no_such_text_is_an_error(text: Data) -> None:
    with pytest.raises(UserError, match="no held-out document has a row of 512 tokens"):
        found(Lengths(lengths=(512,)), model(), text)
    task: Any = TaskData(task=Dyck(brackets=2, depth=2, length=6), heldout=0.0)
    with pytest.raises(UserError, match="reads TaskData"):
        found(Lengths(lengths=(8,)), model(), task)
