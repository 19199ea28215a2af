"""Word2Vec: its loss and examples by their definitions, the optimum that theory knows, and analogies that must hold."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import ConfigError, config, replace
from lm.data import DataError
from lm.early import CBOW, SkipGram, Stream, Word2Vec, cos_add, cos_mul, stream
from lm.early.word2vec import NONE, Architecture, loss
from tests.early import latent


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def test_the_gradient_of_the_loss_is_its_definitions() -> None:
    """For the given words' mean h: d/du_target = (s(h.u) - 1) h, d/du_negative = s(h.u) h, d/dh the same with u, shared
    out over the given. A word may be several of these at once."""
    rng = np.random.default_rng(0)
    words, outputs = rng.normal(size=(2, 7, 4))
    given, target = np.array([[1, 2, NONE], [3, NONE, NONE], [0, 1, 6]]), np.array([2, 5, 6])
    negatives = np.array([[2, 4], [5, 5], [0, 6]])
    value, d_words, d_outputs = 0.0, np.zeros((7, 4)), np.zeros((7, 4))
    for context, right, wrong in zip(given, target, negatives, strict=True):
        context = context[context != NONE]
        h, dh = words[context].mean(0), np.zeros(4)
        for word, label in ((right, 1), *((w, 0) for w in wrong)):
            p = sigmoid(h @ outputs[word])
            value -= math.log(p if label else 1 - p)
            d_outputs[word] += (p - label) * h
            dh += (p - label) * outputs[word]
        np.add.at(d_words, context, dh / len(context))
    params = {"words": jnp.asarray(words, jnp.float32), "outputs": jnp.asarray(outputs, jnp.float32)}
    found, gradient = jax.value_and_grad(lambda p: jnp.sum(loss(p, given, target, negatives)))(params)
    assert float(found) == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(gradient["words"], d_words, atol=1e-5)
    np.testing.assert_allclose(gradient["outputs"], d_outputs, atol=1e-5)


def pairs(tokens: np.ndarray, document: np.ndarray, reach: np.ndarray) -> list[tuple[int, list[int]]]:
    """Each place with the places it reaches, from the definition."""
    found = []
    for i in range(len(tokens)):
        near = [j for j in range(len(tokens)) if j != i and abs(i - j) <= reach[i] and document[i] == document[j]]
        found.append((i, near))
    return found


def test_examples_are_what_the_windows_reach() -> None:
    rng, window = np.random.default_rng(0), 3
    tokens, document = rng.permutation(50), np.sort(rng.integers(0, 6, 50))
    reach = np.random.default_rng(7).integers(1, window + 1, 50)
    assert set(reach) == {1, 2, 3}
    wanted = pairs(tokens, document, reach)
    given, target = SkipGram().examples(tokens, document, window, np.random.default_rng(7))
    expected = sorted((tokens[i], tokens[j]) for i, near in wanted for j in near)
    assert sorted(zip(given[:, 0], target, strict=True)) == expected
    given, target = CBOW().examples(tokens, document, window, np.random.default_rng(7))
    bags = {int(t): sorted(row[row != NONE]) for t, row in zip(target, given, strict=True)}
    assert bags == {int(tokens[i]): sorted(tokens[near]) for i, near in wanted if near}


def chain(seed: int, vocab: int, count: int) -> Stream:
    """Short documents in which a word is followed by each word at its own rate, none of them rare."""
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.full(vocab, 2.0), vocab) * 0.8 + 0.2 / vocab
    rows = [rng.integers(0, vocab, count)]
    for _ in range(3):
        rows.append((rng.random(count)[:, None] > np.cumsum(table[rows[-1]], axis=1)).sum(1).clip(max=vocab - 1))
    return stream(np.stack(rows, axis=1))


@pytest.mark.parametrize(("power", "negatives"), [(1.0, 1), (1.0, 3), (0.75, 2)])
def test_the_optimum_of_skip_gram_is_shifted_pmi(power: float, negatives: int) -> None:
    """Levy and Goldberg (2014, "Neural word embedding as implicit matrix factorization", equation 7): with vectors of
    full rank w . c = log(P(c | w) / P_n(c)) - log k, with P_n the distribution of negatives (of power 1: that of the
    words, so that it is PMI - log k)."""
    vocab = 6
    text = chain(0, vocab, 20_000)
    counts = np.bincount(text.tokens, minlength=vocab)
    given, target = SkipGram().examples(text.tokens, text.document, 1, np.random.default_rng(0))
    together = np.zeros((vocab, vocab))
    np.add.at(together, (given[:, 0], target), 1)
    drawn = counts**power / (counts**power).sum()
    shifted = np.log(together / together.sum(1, keepdims=True) / drawn) - math.log(negatives)
    spec = Word2Vec(
        width=vocab,
        window=1,
        negatives=negatives,
        power=power,
        subsample=None,
        epochs=20,
        learning_rate=0.5,
        batch=512,
    )
    params = spec.train(text, counts).params
    found = np.asarray(params["words"] @ params["outputs"].T)
    assert shifted.std() > 0.3
    np.testing.assert_allclose(found, shifted, atol=0.06)
    pmi = np.log(together * together.sum() / together.sum(1)[:, None] / together.sum(0))
    if power == 1:
        np.testing.assert_allclose(found + math.log(negatives), pmi, atol=0.12)  # documents' ends have one neighbour


@pytest.mark.parametrize("architecture", [SkipGram(), CBOW()], ids=["skip-gram", "cbow"])
def test_analogies_of_known_structure_come_out(architecture: Architecture) -> None:
    spec = Word2Vec(
        architecture=architecture, width=12, window=3, subsample=None, epochs=12, batch=256, learning_rate=0.3
    )
    found = spec.fit(latent.documents())
    asked = latent.analogies()
    assert ("man", "king", "woman", "queen") in asked and len(asked) == 48
    for score in (cos_add, cos_mul):
        right = [found.analogy(a, b, c, score=score)[0][0] == d for a, b, c, d in asked]
        assert all(right), f"{sum(right)} of {len(right)}"
    assert found.nearest("m0", 3)[0][0] in {"m1", "m2", "m3"}


SMALL = Word2Vec(width=4, smallest=1, window=2, epochs=2, batch=16, subsample=None)


def test_equal_seeds_give_equal_vectors() -> None:
    text = latent.documents(50)
    one, again, other = (spec.fit(text) for spec in (SMALL, SMALL, replace(SMALL, {"seed": 1})))
    np.testing.assert_array_equal(one.vectors, again.vectors)
    assert one.words == other.words and np.abs(one.vectors - other.vectors).max() > 1e-3


seen: list[np.ndarray] = []


@config
class Watched(SkipGram):
    def examples(self, tokens: np.ndarray, *rest: Any) -> Any:
        seen.append(tokens)
        return super().examples(tokens, *rest)


def test_frequent_words_are_left_out_as_often_as_the_paper_says() -> None:
    rng = np.random.default_rng(0)
    documents = [rng.choice(["the", "of", "sea"], 20, p=[0.89, 0.1, 0.01]).tolist() for _ in range(1000)]
    counts = np.array([sum(d.count(w) for d in documents) for w in ("the", "of", "sea")])
    spec = replace(SMALL, {"architecture": Watched(), "subsample": 0.02, "epochs": 1})
    seen.clear()
    spec.fit(documents)
    kept = np.bincount(seen[0], minlength=3)
    expected = counts * np.minimum(1, np.sqrt(0.02 / (counts / counts.sum())))
    assert (np.abs(kept - expected) < 4 * np.sqrt(expected)).all() and kept[2] == counts[2]
    whole, never = (replace(spec, {"subsample": x}).fit(documents).vectors for x in (None, 2.0))
    np.testing.assert_array_equal(whole, never)


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Word2Vec.window=0 must be at least 1"):
        Word2Vec(window=0)
    with pytest.raises(ConfigError, match="must be positive"):
        Word2Vec(subsample=0.0)
    with pytest.raises(DataError, match="0 of 2 words occur 5 times or more; give more text, or lower smallest"):
        Word2Vec().fit([["a", "b"]])
    with pytest.raises(DataError, match="no two words stand near each other"):
        SMALL.fit([["a"], ["b"]])
