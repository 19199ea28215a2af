"""A single token that is asked for is hidden from the model, and asked for in the midst of the right others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError
from lm.data.packing import Batch
from lm.models import Execution
from lm.nn import param
from lm.objectives import Masked, MaskedDiffusion, NextToken, Objective, PrefixLM, SpanCorruption
from tests.objectives.packed import BOTH, CAUSAL, CODEC, MASKED, PREFIX, VOCAB
from tests.tiny import made

LENGTH, PLACE = 12, 5
SPANS = SpanCorruption(sentinels=4)
ASKED: dict[str, tuple[Objective, Any]] = {
    "causal": (NextToken(), CAUSAL),
    "masked": (Masked(), MASKED),
    "diffusion": (MaskedDiffusion(), MASKED),
    "spans": (SPANS, PREFIX),
    "spans, encoder-decoder": (SPANS, BOTH),
}
TWO_SIDED = [name for name in ASKED if name != "causal"]


def row(seed: int = 0, **changed: int) -> np.ndarray:
    """A document's tokens, with some of them changed: at=token."""
    tokens = np.random.default_rng(seed).integers(0, CODEC.eot, LENGTH)
    for at, token in changed.items():
        tokens[int(at[1:])] = token
    return tokens


def batch(rows: list[np.ndarray]) -> Batch:
    targets = np.stack(rows).astype(np.int32)
    ones = np.ones_like(targets)
    before = np.concatenate([CODEC.eot * ones[:, :1], targets[:, :-1]], axis=1)
    places = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), targets.shape).copy()
    return {
        "tokens": before,
        "targets": targets,
        "positions": places,
        "segments": ones,
        "weights": ones.astype(np.float32),
    }


def nats(name: str, rows: list[np.ndarray]) -> np.ndarray:
    """-ln p of the token at PLACE in each row, every row asked by itself."""
    objective, model = ASKED[name]
    graph, params = made(model, std=0.7)
    asked = objective.blanked(batch(rows), PLACE, CODEC, model)
    one: Any = jax.jit(lambda one: objective(param.merge(graph, params), one, Execution()))
    sums = [one({key: x[i : i + 1] for key, x in asked.items()}) for i in range(len(rows))]
    assert [float(each.tokens) for each in sums] == [1.0] * len(rows)
    return np.array([float(each.nats) for each in sums])


@pytest.mark.parametrize("name", ASKED)
def test_the_probabilities_of_all_tokens_add_up_to_one(name: str) -> None:
    """So the answer isn't in the question: else each would be asked of another distribution."""
    found = nats(name, [row(**{f"a{PLACE}": token}) for token in range(VOCAB)])
    assert np.exp(-found).sum() == pytest.approx(1, abs=1e-5) and found.std() > 0.1


@pytest.mark.parametrize("name", ASKED)
def test_every_token_that_may_be_seen_counts_and_no_other(name: str) -> None:
    original = row()
    others = [row(**{f"a{at}": (original[at] + 1) % CODEC.eot}) for at in range(LENGTH) if at != PLACE]
    changes = np.abs(nats(name, others) - nats(name, [original])[0])
    seen = np.array([at < PLACE or name in TWO_SIDED for at in range(LENGTH) if at != PLACE])
    assert (changes[seen] > 1e-4).all() and (changes[~seen] == 0).all()


def test_masked_reads_the_rest_as_it_is() -> None:
    """By hand: the model's own logits at the mask."""
    tokens = row()
    read = tokens.copy()
    read[PLACE] = CODEC.vocab
    graph, params = made(ASKED["masked"][1], std=0.7)
    logp = jax.nn.log_softmax(param.merge(graph, params)(jnp.asarray(read[None], jnp.int32)))[0, PLACE]
    for name in ("masked", "diffusion"):
        assert nats(name, [tokens])[0] == pytest.approx(-float(logp[tokens[PLACE]]), rel=1e-5)


def test_a_span_is_asked_for_after_its_sentinel() -> None:
    tokens, sentinel = row(), CODEC.vocab
    asked = SPANS.blanked(batch([tokens]), PLACE, CODEC, PREFIX)
    written = [CODEC.eot, sentinel, tokens[PLACE]]
    assert asked["tokens"][0].tolist() == [*tokens[:PLACE], sentinel, *tokens[PLACE + 1 :], *written]
    assert asked["segments"][0].tolist() == [-1] * LENGTH + [1] * 3
    assert asked["weights"][0].tolist() == [0.0] * (LENGTH + 1) + [1.0, 0.0]
    assert asked["targets"][0, LENGTH + 1] == tokens[PLACE]


def test_an_objective_that_asks_for_no_single_token_says_so() -> None:
    with pytest.raises(ConfigError, match="PrefixLM doesn't ask for a single token"):
        PrefixLM().blanked(batch([row()]), PLACE, CODEC, PREFIX)
