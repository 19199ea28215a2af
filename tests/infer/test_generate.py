"""Generation over several runs of tokens: the tokens of the full forward pass, streamed or whole, in any bucket."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lm.infer.speed
from lm.config import replace
from lm.infer import Sample, generate, loop, stream
from lm.models import Decoder, Execution
from lm.nn import param
from tests.tiny import MODELS, VOCAB, made

module = sys.modules["lm.infer.generate"]
NEW = 2 * loop.RUN + 6
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3], [5]]
MIXED = {
    "gqa": {},
    "t5": {"block.mixer.kv_heads": 1},  # one key/value head: caches are opened for a run
    "window": {"block.mixer.mask.window": 3, "block.mixer.kv_heads": 1},
    "alibi, window": {"block.mixer.mask.window": loop.RUN + 9, "block.mixer.kv_heads": 1},  # between a run and the text
    "pattern": {},
}


def model(name: str) -> tuple[Decoder, param.Params]:
    spec: Decoder = replace(MODELS[name], {"layers": len(MODELS[name].pattern), **MIXED.get(name, {})})
    return spec, made(spec, std=0.3)[1]


def likeliest(spec: Decoder, params: param.Params, rows: list[list[int]]) -> np.ndarray:
    """After each token of each row, the likeliest next one by the full forward pass."""
    length = max(map(len, rows))
    tokens, segments = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], segments[i, : len(row)] = row, 1
    merged: Any = param.merge(loop.graph(spec), params)
    return np.asarray(merged(jnp.asarray(tokens), segments=jnp.asarray(segments))).argmax(axis=-1)


@pytest.mark.parametrize("name", MIXED)
def test_runs_follow_one_another(name: str) -> None:
    spec, params = model(name)
    out = generate(spec, params, PROMPTS, NEW)
    best = likeliest(spec, params, [p + new for p, new in zip(PROMPTS, out, strict=True)])
    for row, (prompt, new) in enumerate(zip(PROMPTS, out, strict=True)):
        assert new == best[row, len(prompt) - 1 : len(prompt) + NEW - 1].tolist()
    assert len({token for row in out for token in row}) > 3  # not one token again and again
    assert generate(spec, params, PROMPTS[1:2], NEW) == out[1:2]


@pytest.mark.parametrize("name", ["gqa", "window"])
@pytest.mark.parametrize("sampler", [None, Sample(temperature=2.0)], ids=["greedy", "drawn"])
def test_a_stream_gives_the_tokens_of_the_whole(name: str, sampler: Sample | None) -> None:
    spec, params = model(name)
    asked: tuple[Any, ...] = (spec, params, PROMPTS, 2 * module.STREAMED + 3, sampler, 5)
    whole = generate(*asked)
    assert [list(row) for row in zip(*stream(*asked), strict=True)] == whole
    stop = whole[0][module.STREAMED + 1]
    streamed = zip(*stream(*asked, stop=stop), strict=True)
    assert [[token for token in row if token is not None] for row in streamed] == generate(*asked, stop=stop)
    alone = (*asked[:2], [PROMPTS[0]], *asked[3:])
    assert list(stream(*alone, stop=generate(*alone)[0][0])) == []


@pytest.mark.parametrize("sampler", [None, Sample(temperature=2.0)], ids=["greedy", "drawn"])
def test_lengths_that_programs_are_made_for_change_nothing(sampler: Sample | None, monkeypatch: Any) -> None:
    spec, params = model("window")
    asked: tuple[Any, ...] = (spec, params, PROMPTS, 9, sampler)
    rounded = generate(*asked)
    assert [row[:4] for row in rounded] == generate(*asked[:3], 4, sampler)
    for exact in (lambda n: n, lambda n: n + 33):
        monkeypatch.setattr(module, "bucket", exact)
        assert generate(*asked) == rounded


def test_other_lengths_find_the_same_program() -> None:
    spec, params = model("gqa")
    module._program.cache_clear()
    program = module._program(spec, module.Greedy(), Execution())
    for prompt, new in (([1] * 3, 3), ([1] * 16, 9), ([1] * 2, 16)):
        generate(spec, params, [prompt], new)
    assert program._cache_size() == 1
    assert [module.bucket(n) for n in (1, 16, 17, 24, 25, 33, 49, 97, 129)] == [16, 16, 24, 24, 32, 48, 64, 128, 192]


def test_rows_that_have_all_ended_end_the_program(monkeypatch: Any) -> None:
    """How many tokens were made is counted inside the program."""
    spec, params = model("gqa")
    (row,) = generate(spec, params, [[7, 8]], 40)
    made_tokens: list[int] = []
    inner = loop.run

    def counted(*args: Any, **kwargs: Any) -> Any:
        state, out = inner(*args, **kwargs)
        jax.debug.callback(lambda n: made_tokens.append(int(n)), state.number)
        return state, out

    monkeypatch.setattr(loop, "run", counted)
    module._program.cache_clear()
    stop = row[5]
    (cut,) = generate(spec, params, [[7, 8]], 40, stop=stop)
    jax.effects_barrier()
    module._program.cache_clear()
    assert cut == row[: row.index(stop)] and max(made_tokens) == row.index(stop) + 1


def test_one_token_in_one_token_out() -> None:
    spec, params = model("gqa")
    (row,) = generate(spec, params, [[5]], 1)
    assert row == [int(likeliest(spec, params, [[5]])[0, 0])] and 0 <= row[0] < VOCAB


def test_the_type_of_the_computation_is_that_of_the_cache() -> None:
    spec, params = model("gqa")
    request = module._request(spec, params, PROMPTS, 4, 0, None, Execution(compute="bfloat16"))
    state = jax.eval_shape(
        lambda *arrays: loop.begin(spec, module.Greedy(), *arrays, room=request.room), *request.arrays
    )
    floats = {x.dtype for x in jax.tree.leaves(state.cache) if jnp.issubdtype(x.dtype, jnp.floating)}
    assert floats == {jnp.dtype("bfloat16")}
    out = generate(spec, params, PROMPTS, 4, execution=Execution(compute="bfloat16"))
    assert [len(row) for row in out] == [4] * 3


def test_plain_kernels_give_the_same_tokens() -> None:
    spec, params = model("alibi, window")
    plain = generate(spec, params, PROMPTS, 12, execution=Execution(kernels="plain"))
    assert plain == generate(spec, params, PROMPTS, 12)


def test_speed_uses_the_loop_of_generation(monkeypatch: Any) -> None:
    calls = []
    inner = loop.run
    monkeypatch.setattr(loop, "run", lambda *args: calls.append(args) or inner(*args))
    found = lm.infer.speed.decode_speed(model("window")[0], context=40, batch=2, repeats=1)
    assert len(calls) == 1 and found["tokens_per_second"] > 0 and (found["context"], found["batch"]) == (40, 2)
