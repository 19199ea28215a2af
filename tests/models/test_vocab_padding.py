"""Rows that fill the token tables up to a multiple have no part in anything."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.infer import generate
from lm.models import Execution
from lm.nn import param
from lm.nn.kernels import cross_entropy
from lm.objectives import NextToken
from tests.tiny import MODELS, VOCAB, made, packed

OBJECTIVE = NextToken(z_loss=0.01, label_smoothing=0.1)
BATCH = {name: jnp.asarray(value) for name, value in packed().items()}


TABLES = ("embedding", "unembedding")


def loss_and_gradients(model: Any, params: param.Params) -> tuple[Any, param.Params]:
    graph = made(model)[0]

    def total(params: param.Params) -> tuple[jax.Array, Any]:
        sums = OBJECTIVE(param.merge(graph, params), BATCH, Execution())
        return sums.loss, sums

    (_, sums), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    return sums, gradients


def both(name: str) -> tuple[Any, param.Params, Any, param.Params]:
    """A model and its parameters, without and with rows up to a multiple of 16; those are large, to be seen."""
    model = MODELS[name]
    padded = replace(model, {"vocab_multiple": 16})
    params = made(model)[1]
    extra = {table: ((0, padded.rows - VOCAB), (0, 0)) for table in TABLES if table in params}
    filled = {table: jnp.pad(params[table], pad, constant_values=50.0) for table, pad in extra.items()}
    return model, params, padded, {**params, **filled}


@pytest.mark.parametrize("large", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("name", ["learned", "mha"], ids=["softcap, untied", "tied"])
def test_loss_and_gradients_are_those_without_the_rows(name, large, monkeypatch):
    if large:
        monkeypatch.setattr(cross_entropy, "LARGE", 1)
    model, params, padded, filled = both(name)
    assert padded.rows == 48 > VOCAB
    (alone, gradients), (sums, found) = loss_and_gradients(model, params), loss_and_gradients(padded, filled)
    for a, b in zip(jax.tree.leaves(sums), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for table in TABLES:
        if table in found:
            assert not np.any(found[table][VOCAB:])
            found = {**found, table: found[table][:VOCAB]}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, gradients)


def test_no_row_is_ever_generated():
    model, params, padded, filled = both("mha")
    prompts = [[1, 2, 3], [5]]
    assert generate(padded, filled, prompts, 6) == generate(model, params, prompts, 6)
    graph = made(padded)[0]
    assert param.merge(graph, filled)(BATCH["tokens"]).shape[-1] == VOCAB


def test_they_are_parameters_but_no_work():
    model, _, padded, filled = both("learned")
    cost, alone = padded.cost(12), model.cost(12)
    assert cost.params == sum(x.size for x in jax.tree.leaves(filled)) == alone.params + 2 * 8 * model.width
    assert (cost.flops, cost.non_embedding) == (alone.flops, alone.non_embedding)


def test_a_multiple_below_one_is_an_error():
    with pytest.raises(ConfigError, match="vocab_multiple=0 must be at least 1"):
        replace(MODELS["mha"], {"vocab_multiple": 0})
