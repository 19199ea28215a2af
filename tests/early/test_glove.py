"""GloVe: co-occurrences by their definition, the factors of a matrix that has them, and analogies that must hold."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from lm.config import ConfigError, replace
from lm.data import DataError
from lm.early import GloVe, cos_add, cos_mul, stream
from lm.early.glove import cooccurrences, misfit
from tests.early import latent


def test_cooccurrences_weigh_one_over_the_distance_inside_documents() -> None:
    documents = [[0, 1, 2, 1], [3], [2, 2, 0]]
    expected = np.zeros((5, 5))
    for document in documents:
        for i, a in enumerate(document):
            for j, b in enumerate(document):
                if 0 < abs(i - j) <= 2:
                    expected[a, b] += 1 / abs(i - j)
    np.testing.assert_allclose(cooccurrences(stream(documents), 5, 2).toarray(), expected)


def test_it_finds_the_factors_of_a_matrix_that_has_them() -> None:
    rng, vocab, rank = np.random.default_rng(0), 12, 3
    w, c = rng.normal(size=(2, vocab, rank)) * 0.7
    b, d = rng.normal(size=(2, vocab))
    log_x = w @ c.T + b[:, None] + d + 3
    spec = GloVe(width=rank, epochs=800, batch=48, maximum=5.0, learning_rate=1.0)
    trained = spec.train(scipy.sparse.csr_array(np.exp(log_x)))
    assert trained.losses[-1] < 1e-8 * trained.losses[0]
    i, j = (x.ravel() for x in np.indices(log_x.shape))
    assert np.abs(misfit(trained.params, jnp.asarray(i), jnp.asarray(j), jnp.asarray(log_x.ravel()))).max() < 1e-3
    narrow = replace(spec, {"width": rank - 1}).train(scipy.sparse.csr_array(np.exp(log_x)))
    assert narrow.losses[-1] > 1e-3 * trained.losses[0]  # which has no product of one factor fewer


def test_rare_pairs_weigh_less() -> None:
    """Of a matrix that no one product fits, the frequent half is fitted better; with alpha 0 both are alike."""
    rng = np.random.default_rng(0)
    x = rng.permuted(np.repeat([1.0, 100.0], 200)).reshape(20, 20) * rng.uniform(0.5, 2, (20, 20))
    errors = {}
    for alpha in (0.0, 2.0):
        params = GloVe(width=2, alpha=alpha, epochs=300, batch=100).train(scipy.sparse.csr_array(x)).params
        i, j = np.indices(x.shape).reshape(2, -1)
        off = np.abs(misfit(params, jnp.asarray(i), jnp.asarray(j), jnp.asarray(np.log(x).ravel())))
        errors[alpha] = off[x.ravel() > 10].mean() / off[x.ravel() < 10].mean()
    assert errors[2.0] < 0.3 * errors[0.0]


def test_analogies_of_known_structure_come_out() -> None:
    found = GloVe(width=12, window=3, epochs=200, batch=64).fit(latent.documents())
    for score in (cos_add, cos_mul):
        right = [found.analogy(a, b, c, score=score)[0][0] == d for a, b, c, d in latent.analogies()]
        assert all(right), f"{sum(right)} of {len(right)}"


def test_equal_seeds_give_equal_vectors() -> None:
    spec, text = GloVe(width=4, smallest=1, window=2, epochs=2, batch=16), latent.documents(50)
    one, again, other = (s.fit(text) for s in (spec, spec, replace(spec, {"seed": 1})))
    np.testing.assert_array_equal(one.vectors, again.vectors)
    assert np.abs(one.vectors - other.vectors).max() > 1e-3


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"GloVe\.maximum=0"):
        GloVe(maximum=0.0)
    with pytest.raises(DataError, match="no two words stand near each other"):
        GloVe(smallest=1).fit([["a"], ["b"]])
