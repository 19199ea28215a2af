"""Masked diffusion: how much is hidden, and that its nats bound the likelihood."""

from __future__ import annotations

import types
from typing import Any

import jax.numpy as jnp
import numpy as np

from lm.data.tokenizers import Codec
from lm.models import Execution
from lm.models.model import Hidden
from lm.nn.aux import Aux
from lm.objectives import MaskedDiffusion
from lm.objectives.draws import draws
from tests.objectives.packed import CODEC, MASKED, packed, prepare

MASK = CODEC.vocab


def test_what_is_hidden_and_its_scale():
    for n in range(20):
        batch = packed(n % 3)
        found = prepare(MaskedDiffusion(), MASKED, batch, n=n)
        hidden = found["tokens"] == MASK
        np.testing.assert_array_equal(found["tokens"][~hidden], batch["targets"][~hidden])
        np.testing.assert_array_equal(hidden, found["scale"] > 0)
        assert not hidden[batch["weights"] == 0].any()
        count, all = hidden.sum(1), (batch["weights"] > 0).sum(1)
        assert (count >= 1).all()
        np.testing.assert_allclose(found["scale"].sum(1), all, rtol=1e-6)  # n/l for each of l
        for name in ("targets", "positions", "segments", "weights"):
            np.testing.assert_array_equal(found[name], batch[name])


def test_every_number_of_hidden_tokens_is_equally_likely_and_spread_over_the_batch():
    batch, counts = packed(rows=8, length=24, shortest=40, longest=60), []
    for n in range(500):
        hidden = (prepare(MaskedDiffusion(), MASKED, batch, n=n)["tokens"] == MASK).sum(1)[:7]
        counts.append(hidden)
        shares = -(-hidden // 3)
        assert len(np.unique(shares)) == 7  # parts of three tokens: seven of the eight parts, each once
    often = np.bincount(np.concatenate(counts), minlength=25)
    assert often[0] == 0
    expected = often.sum() / 24
    assert abs(often[1:] - expected).max() < 5 * np.sqrt(expected)


def sums(logits_V: np.ndarray, batch: dict[str, Any]) -> Any:
    """The objective's sums for a model that says the same of every token."""
    V = len(logits_V)
    model = types.SimpleNamespace(
        hidden=lambda tokens, *_: Hidden(jnp.ones((*tokens.shape, 1)), None, Aux()),
        head=lambda: jnp.asarray(logits_V, jnp.float32)[:, None],
        head_bias=lambda: None,
        spec=types.SimpleNamespace(vocab=V, softcap=None),
    )
    return MaskedDiffusion()(model, {k: jnp.asarray(v) for k, v in batch.items()}, Execution())


def test_the_bound_of_an_independent_source_is_its_entropy():
    """Tokens drawn from p, and a model that says p: every order has the likelihood itself, so the bound is tight."""
    rng, V, rows, length = np.random.default_rng(0), 5, 4000, 7
    p = rng.dirichlet(np.ones(V))
    tokens = rng.choice(V, size=(rows, length), p=p).astype(np.int32)
    ones = np.ones_like(tokens)
    batch = {
        "tokens": tokens,
        "targets": tokens,
        "segments": ones,
        "positions": ones,
        "weights": ones.astype(np.float32),
    }
    codec = Codec([bytes([65 + i]) for i in range(V)], eot=V - 1)
    found = MaskedDiffusion().prepare(batch, draws(0, 0, 0, rows, rows), codec, MASKED)
    logits = np.concatenate([np.log(p), [-1e9]])  # the mask is no token of the text
    got = sums(logits, found)
    assert float(got.tokens) == rows * length
    nats = -np.log(p)[tokens]
    entropy = -(p * np.log(p)).sum()
    per_row = (found["scale"] * nats).sum(1) / length
    error = per_row.std(ddof=1) / np.sqrt(rows)
    assert error < 0.02
    np.testing.assert_allclose(float(got.nats / got.tokens), per_row.mean(), rtol=1e-5)
    assert abs(per_row.mean() - entropy) < 4 * error


def test_the_bound_averages_over_all_orders():
    """A source with dependence, and its exact conditionals: what is expected is the entropy again, and of a model that
    ignores the dependence it is more."""
    rng, rows, length = np.random.default_rng(1), 3000, 3
    first = rng.integers(0, 2, rows)
    tokens = np.repeat(first[:, None], length, axis=1).astype(np.int32)  # one coin, written three times
    ones = np.ones_like(tokens)
    batch = {
        "tokens": tokens,
        "targets": tokens,
        "segments": ones,
        "positions": ones,
        "weights": ones.astype(np.float32),
    }
    codec = Codec([b"a", b"b", b""], eot=2)
    found = MaskedDiffusion().prepare(batch, draws(0, 0, 0, rows, rows), codec, MASKED)
    hidden = found["scale"] > 0
    told = np.where(hidden.all(1), np.log(2), 0.0)  # nothing is left to guess where one of them is seen
    per_row = (found["scale"] * told[:, None]).sum(1)
    # all three are hidden in a third of the rows, at a scale of 1: log 2 each, which is three times the entropy
    error = per_row.std(ddof=1) / np.sqrt(rows)
    assert abs(per_row.mean() - np.log(2)) < 4 * error
    blind = (found["scale"] * np.log(2)).sum(1).mean()
    np.testing.assert_allclose(blind, 3 * np.log(2), rtol=1e-6)
