"""What a position can see, by gradient: exactly the mask's pairs, through two layers, for every mixer and position."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.models import Decoder, Execution
from lm.nn import param
from tests.masks import visible
from tests.tiny import LENGTH, MODELS, VOCAB, made, mask_of, mixer_of

ROWS = {
    "one document": np.ones(LENGTH, np.int32),
    "three documents, one with a prefix": np.array([1] * 4 + [2] + [-3] * 3 + [3] * 4, np.int32),
    "a prefix, padded": np.array([-1] * 2 + [1] * 3 + [2] * 4 + [0] * 3, np.int32),
}


def reach(model: Decoder, segments: np.ndarray) -> np.ndarray:
    """True at [i, j] where position i may depend on position j, from the definition alone."""
    seen = np.eye(LENGTH, dtype=bool)
    for layer in range(model.layers):
        pairs = visible(mask_of(mixer_of(model, layer)), segments)
        seen = (pairs.astype(int) @ seen.astype(int)) > 0
    return seen


@cache
def dependence(name: str) -> np.ndarray:
    """The size of d (hidden [r, i]) / d (embedding of the token at [q, j]), as [i, r, q, j]."""
    model = MODELS[name]
    graph, params = made(model)
    tokens = jnp.arange(len(ROWS) * LENGTH).reshape(len(ROWS), LENGTH)  # each has an embedding of its own
    segments = jnp.asarray(np.stack(list(ROWS.values())))
    probe = np.random.default_rng(0).normal(size=(len(ROWS), LENGTH, model.width))

    @jax.jit
    def sizes(params: param.Params, probes: jax.Array) -> jax.Array:
        def hidden(table: jax.Array) -> jax.Array:
            module = param.merge(graph, {**params, "embedding": table})
            return module.hidden(tokens, None, segments, None, Execution(layers="scan")).h

        return jnp.linalg.norm(jax.vmap(jax.vjp(hidden, params["embedding"])[1])(probes)[0], axis=-1)

    # a gradient for each position of each row, so that one in another row can't hide behind it
    probes = np.einsum("rid,rp,ik->irpkd", probe, np.eye(len(ROWS)), np.eye(LENGTH))
    found = sizes(params, jnp.asarray(probes.reshape(-1, *probe.shape), jnp.float32))
    return np.asarray(found)[:, : tokens.size].reshape(LENGTH, len(ROWS), *tokens.shape)


@pytest.mark.parametrize("row", range(len(ROWS)), ids=list(ROWS))
@pytest.mark.parametrize("name", MODELS)
def test_a_position_depends_on_what_the_mask_allows_and_on_nothing_else(name: str, row: int) -> None:
    found, segments = dependence(name)[:, row], list(ROWS.values())[row]
    allowed, real = reach(MODELS[name], segments), segments != 0
    assert np.isfinite(found).all()
    assert (np.delete(found, row, axis=1) == 0).all()
    found = found[:, row]
    assert (found[real][:, ~real] == 0).all()
    assert (found[real][:, real][~allowed[real][:, real]] == 0).all()
    assert (found[real][:, real][allowed[real][:, real]] > 1e-6).all()


def test_the_oracle_knows_windows() -> None:
    seen = reach(MODELS["window"], ROWS["one document"])
    assert seen.sum(axis=1).tolist() == [1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5, 5]
    assert len(ROWS) * LENGTH <= VOCAB
