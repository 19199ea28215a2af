"""The token in the middle of held-out rows, by each objective's own question."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError, lift, replace
from lm.data import Data, TaskData, Text, load
from lm.data.synthetic import Dyck
from lm.errors import UserError
from lm.evals import Infilling
from lm.models import Decoder
from lm.nn import Mask, param
from lm.objectives import Masked, NextToken, Objective, PrefixLM
from lm.sharding import layout
from lm.train import Training
from lm.train.measure import prepared
from lm.train.step import Program
from tests.tiny import BLOCKS, made

LENGTH, PLACE = 8, 4
MASKED_BYTE = 256


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Documents of 10 to 240 bytes, so that some rows lie in one document and others don't."""
    folder, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    for i in range(24):
        (folder / f"{i:02d}.txt").write_text("".join(rng.choice(list("abcdef \n"), size=10 * (i + 1))))
    return Data(corpus=Text(path=str(folder)), length=LENGTH, batch=3, heldout=0.4)


@cache
def model(mask: Mask) -> Decoder:
    return Decoder(vocab=260, width=16, layers=2, block=replace(BLOCKS["gqa"], {"mixer.mask": mask}))


def program(objective: Objective, mask: Mask) -> Program:
    return Program(model(mask), lift(Training(steps=1, objective=objective))[0], layout())


def found(objective: Objective, mask: Mask, data: Any, **fields: Any) -> dict[str, float]:
    look = prepared(Infilling(**fields), program(objective, mask), data)
    return look(made(model(mask), std=0.7)[1]).numbers


def rows(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets of the held-out rows that lie in one document and don't end one at PLACE."""
    dataset = load(replace(data, {"batch": 5}))
    parts = list(dataset.heldout_batches())
    kept = [
        (t, g)
        for part in parts
        for t, g, w in zip(part["tokens"], part["targets"], part["weights"], strict=True)
        if w.all() and dataset.tokenizer.eot not in [*t[1:], g[PLACE]]
    ]
    assert 20 < len(kept) < sum(len(part["tokens"]) for part in parts)
    return np.stack([t for t, _ in kept]), np.stack([g for _, g in kept])


def expected(mask: Mask, read: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """By the model's own call on what it reads."""
    module = param.merge(made(model(mask))[0], made(model(mask), std=0.7)[1])
    logits = np.asarray(module(jnp.asarray(read, jnp.int32)), np.float64)[:, PLACE]
    answers = targets[:, PLACE]
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    told = logp[np.arange(len(answers)), answers]
    return {"accuracy": np.mean(logits.argmax(-1) == answers), "nats": -told.mean(), "examples": len(answers)}


def test_a_causal_model_is_asked_by_what_comes_before(text: Data) -> None:
    """In whole batches, and whatever its loss is weighed by."""
    tokens, targets = rows(text)
    count = len(tokens) // text.batch * text.batch
    wanted = expected(Mask(), tokens[:count], targets[:count])
    assert found(NextToken(z_loss=0.1), Mask(), text) == pytest.approx(wanted, rel=1e-5)
    assert wanted["nats"] > 0.1


def test_a_masked_model_reads_both_sides_of_some_rows_spread_over_the_text(text: Data) -> None:
    _, targets = rows(text)
    targets = targets[[i * len(targets) // 7 for i in range(6)]]  # two batches of three
    read, both = targets.copy(), Mask(causal=False)
    read[:, PLACE] = MASKED_BYTE
    assert found(Masked(), both, text, rows=7) == pytest.approx(expected(both, read, targets), rel=1e-5)


def test_fewer_rows_than_a_batch(text: Data) -> None:
    assert found(NextToken(), Mask(), text, rows=2)["examples"] == 2


def test_refuses(text: Data) -> None:
    with pytest.raises(ConfigError, match="rows=0"):
        Infilling(rows=0)
    with pytest.raises(UserError, match="no held-out document has a row of 512 tokens"):
        found(NextToken(), Mask(), replace(text, {"length": 512}))
    with pytest.raises(UserError, match="reads TaskData"):
        found(NextToken(), Mask(), TaskData(task=Dyck(brackets=2, depth=2, length=6), heldout=0.0))
    with pytest.raises(ConfigError, match="PrefixLM doesn't ask for a single token"):
        found(PrefixLM(), Mask(prefix=True), text)
