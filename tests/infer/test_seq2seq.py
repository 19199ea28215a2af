"""Generation by encoder-decoders: the tokens of the full forward pass, whatever else is in the batch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.errors import UserError
from lm.infer import Sample, loop
from lm.infer.seq2seq import generate
from lm.models import EncoderDecoder, Execution
from lm.nn import param
from tests.models.test_encoders import BART, T5
from tests.tiny import LENGTH, VOCAB, made

START = 3
NEW = loop.RUN + 6
SOURCES = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3], [5]]
MODELS = {"t5": T5, "bart": replace(BART, {"decoder.tied": False})}  # tied, these weights repeat one token


def model(name: str) -> tuple[EncoderDecoder, param.Params]:
    return MODELS[name], made(MODELS[name], std=0.3)[1]


def likeliest(spec: EncoderDecoder, params: param.Params, source: list[int], target: list[int]) -> list[int]:
    """The likeliest token after each prefix of a target, by the full forward pass of one row."""
    merged: Any = param.merge(loop.graph(spec), params)
    logits = jax.jit(lambda: merged(jnp.asarray([source]), jnp.asarray([[START, *target[:-1]]])))()
    return np.asarray(logits)[0].argmax(axis=-1).tolist()


@pytest.mark.parametrize("name", MODELS)
def test_a_row_of_a_batch_is_the_row_alone_and_the_full_forward_pass(name: str) -> None:
    """Over several runs of tokens, with sources of several lengths."""
    spec, params = model(name)
    out = generate(spec, params, SOURCES, NEW, START)
    for source, target in zip(SOURCES, out, strict=True):
        assert target == likeliest(spec, params, source, target)
    assert generate(spec, params, SOURCES[:1], NEW, START) == out[:1]
    assert out[0] != out[1] and len({token for row in out for token in row}) > 3  # it reads, and doesn't repeat one


def test_a_row_ends_before_its_first_stop() -> None:
    spec, params = model("t5")
    whole = generate(spec, params, SOURCES, 12, START)
    stop = whole[1][2]
    cut = generate(spec, params, SOURCES, 12, START, stop=stop)
    assert cut == [row[: row.index(stop)] if stop in row else row for row in whole] and len(cut[1]) <= 2


def test_draws_follow_the_seed() -> None:
    spec, params = model("t5")
    one, again, other = (
        generate(spec, params, SOURCES, 12, START, sampler=Sample(temperature=2.0), seed=seed) for seed in (0, 0, 1)
    )
    assert one == again != other
    assert all(0 <= token < VOCAB for row in one for token in row)


def test_bfloat16_and_plain_kernels_decode() -> None:
    spec, params = model("t5")
    assert generate(spec, params, SOURCES, 6, START, execution=Execution(kernels="plain")) == generate(
        spec, params, SOURCES, 6, START
    )
    rough = generate(spec, params, SOURCES, 6, START, execution=Execution(compute="bfloat16"))
    assert [len(row) for row in rough] == [6] * 3


def test_errors_say_what_to_do() -> None:
    spec, params = model("bart")
    with pytest.raises(UserError, match="at least one token"):
        generate(spec, params, [[1], []], 3, START)
    with pytest.raises(ConfigError, match=rf"{LENGTH} learned positions, {LENGTH + 1} were asked"):
        generate(spec, params, [[1] * (LENGTH + 1)], 3, START)
