"""Sampling from a mask-filling model, against a loop that is written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.errors import UserError
from lm.infer.diffusion import AnyOrder, MostConfident, Unmasking, unmask
from lm.models import Decoder
from lm.nn import param
from tests.objectives.packed import CODEC, MASKED, SIZES
from tests.objectives.packed import SEES_ALL as BLOCK
from tests.tiny import made

MASK = CODEC.vocab
GRAPH, PARAMS = made(MASKED)
FORWARD = jax.jit(lambda params, tokens: param.merge(GRAPH, params)(tokens))
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6], []]


def logits_of(tokens: list[int]) -> np.ndarray:
    """Of one row, whole."""
    return np.asarray(FORWARD(PARAMS, jnp.asarray([tokens])))[0, :, :MASK]


def by_hand(prompt: list[int], new: int, block: int, counts: list[int]) -> list[int]:
    """Greedy, most confident first."""
    row = [*prompt, *[MASK] * new]
    for begin in range(len(prompt), len(row), block):
        for count in counts:
            logits = logits_of(row)
            p = np.exp(logits - logits.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            masked = [i for i in range(begin, begin + block) if row[i] == MASK]
            for i in sorted(masked, key=lambda i: -p[i].max())[:count]:
                row[i] = int(p[i].argmax())
    return row[len(prompt) :]


@pytest.mark.parametrize(("steps", "block", "counts"), [(8, None, [1] * 8), (3, None, [2, 3, 3]), (4, 4, [2, 2])])
def test_the_most_confident_stay(steps, block, counts):
    """Each prompt of a batch as if alone: padding leaves no trace."""
    found = unmask(MASKED, PARAMS, PROMPTS, 8, Unmasking(steps=steps, block=block), mask=MASK)
    assert found == [by_hand(prompt, 8, block or 8, counts) for prompt in PROMPTS]


def test_blocks_of_one_go_from_left_to_right():
    left = unmask(MASKED, PARAMS, PROMPTS, 6, Unmasking(steps=6, block=1), mask=MASK)
    any_order = unmask(MASKED, PARAMS, PROMPTS, 6, Unmasking(steps=6, block=1, order=AnyOrder()), mask=MASK)
    assert left == any_order == [by_hand(prompt, 6, 1, [1]) for prompt in PROMPTS]


def test_random_orders_and_draws():
    how = Unmasking(steps=6, order=AnyOrder(), temperature=1.0)
    one, again, other = (unmask(MASKED, PARAMS, PROMPTS, 6, how, mask=MASK, seed=seed) for seed in (0, 0, 1))
    assert one == again != other
    assert all(0 <= token < MASK for row in one + other for token in row)
    greedy = replace(how, {"temperature": 0.0})
    orders = {str(unmask(MASKED, PARAMS, [[3, 1]], 6, greedy, mask=MASK, seed=seed)) for seed in range(6)}
    assert len(orders) > 1


def test_one_step_draws_from_the_models_distribution():
    """The first token of many draws has its frequencies."""
    how, prompts = Unmasking(steps=1, temperature=2.0), [[3, 1, 4]] * 2000
    drawn = np.array(unmask(MASKED, PARAMS, prompts, 1, how, mask=MASK))[:, 0]
    logits = logits_of([3, 1, 4, MASK])[-1] / 2.0
    p = np.exp(logits - logits.max())
    p /= p.sum()
    found = np.bincount(drawn, minlength=MASK)
    assert (abs(found - 2000 * p) < 5 * np.sqrt(2000 * p * (1 - p)) + 1e-9).all()


def test_a_decoder_that_sees_all_can_be_sampled():
    model = Decoder(**SIZES, block=BLOCK)
    found = unmask(model, made(model)[1], PROMPTS, 4, Unmasking(steps=2), mask=MASK)
    assert [len(row) for row in found] == [4, 4, 4]


def test_what_makes_no_sense_is_refused():
    for change, said in [({"steps": 0}, "steps=0"), ({"block": 0}, "block=0"), ({"temperature": -1.0}, "temperature")]:
        with pytest.raises(ConfigError, match=said):
            Unmasking(**{"steps": 1, **change})
    for how, said in [(Unmasking(steps=4, block=3), "must divide"), (Unmasking(steps=9), "at most 8")]:
        with pytest.raises(ConfigError, match=said):
            how.schedule(8)
    with pytest.raises(UserError, match="needs a prompt"):
        unmask(MASKED, PARAMS, [], 4, Unmasking(steps=2), mask=MASK)
    assert MostConfident() != AnyOrder()
