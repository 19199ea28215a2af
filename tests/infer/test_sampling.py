"""Sampling: the limits of top-k and top-p by hand, and draws that follow the distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError
from lm.errors import UserError
from lm.infer import Greedy, Sample, generate
from tests import tiny

P = np.array([0.5, 0.25, 0.15, 0.1])
LOGITS = jnp.log(jnp.asarray([P, P[::-1]], jnp.float32))


def kept(sampler: Sample) -> list[list[bool]]:
    return np.isfinite(np.asarray(sampler.limited(LOGITS))).tolist()


def test_top_k_keeps_the_k_likeliest():
    assert kept(Sample(top_k=2)) == [[True, True, False, False], [False, False, True, True]]
    assert kept(Sample(top_k=99)) == [[True] * 4] * 2


@pytest.mark.parametrize(
    ("top_p", "count"), [(0.01, 1), (0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.91, 4), (1.0, 4)]
)
def test_top_p_keeps_the_smallest_set_that_holds_it(top_p, count):
    first, second = kept(Sample(top_p=top_p))
    assert first == [i < count for i in range(4)] and second == first[::-1]


def test_top_p_counts_after_top_k():
    # of the two that top_k leaves, the first holds 2/3
    assert kept(Sample(top_k=2, top_p=0.6))[0] == [True, False, False, False]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_distribution(temperature):
    n = 20_000
    draws = Sample(temperature=temperature)(jnp.tile(LOGITS[:1], (n, 1)), jax.random.key(0))
    expected = P ** (1 / temperature) / np.sum(P ** (1 / temperature))
    seen = np.bincount(np.asarray(draws), minlength=4) / n
    assert np.all(np.abs(seen - expected) < 5 * np.sqrt(expected * (1 - expected) / n))


def test_greedy_takes_the_likeliest():
    assert Greedy()(LOGITS, jax.random.key(0)).tolist() == [0, 3]


def test_generation_is_seeded_and_top_1_is_greedy():
    model = tiny.MODELS["gqa"]
    _, params = tiny.made(model)
    prompts = [[1, 2, 3], [4]]
    greedy = generate(model, params, prompts, 6)
    assert generate(model, params, prompts, 6, Sample(top_k=1), seed=3) == greedy
    hot = [generate(model, params, prompts, 6, Sample(temperature=5.0), seed=s) for s in (0, 0, 1)]
    assert hot[0] == hot[1] != hot[2]


def test_generation_ends_before_the_stop_token():
    model = tiny.MODELS["gqa"]
    _, params = tiny.made(model)
    (whole,) = generate(model, params, [[1, 2, 3]], 6)
    (cut,) = generate(model, params, [[1, 2, 3]], 6, stop=whole[2])
    assert cut == whole[: whole.index(whole[2])]


def test_what_cannot_be_sampled():
    for fields in ({"temperature": 0.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}):
        with pytest.raises(ConfigError):
            Sample(**fields)
    model = tiny.MODELS["gqa"]
    for prompts in ([], [[]]):
        with pytest.raises(UserError, match="at least one token"):
            generate(model, {}, prompts, 3)
