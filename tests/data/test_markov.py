"""A Markov source: its entropy is that of the text it makes."""

import itertools
import math

import numpy as np
import pytest

from lm.config import ConfigError, replace
from lm.data import Data, load
from lm.data.synthetic import Markov

SMALL = Markov(symbols=3, order=2, concentration=2.0, documents_count=3000, length=12)


def probability(source: Markov, text: tuple[int, ...]) -> float:
    """Of a whole document."""
    s, k = source.symbols, source.order
    context = sum(c * s ** (k - 1 - i) for i, c in enumerate(text[:k]))
    p = source.stationary[context]
    for symbol in text[k:]:
        p *= source.table[context, symbol]
        context = context * s % s**k + symbol
    return float(p)


def test_the_entropy_is_that_of_all_documents():
    """By the definition, over all of the 3^7 texts there are."""
    source = replace(SMALL, {"length": 7})
    p = np.array([probability(source, text) for text in itertools.product(range(3), repeat=7)])
    assert p.sum() == pytest.approx(1)
    assert source.entropy() == pytest.approx(-np.sum(p * np.log(p)) / 8)


def test_the_text_has_the_sources_probabilities():
    numbers = [tuple("abc".index(c) for c in text) for text in SMALL.documents()]
    assert len(numbers) == 3000 and {len(n) for n in numbers} == {12}
    nats = np.array([-math.log(probability(SMALL, n)) for n in numbers]) / 13
    assert nats.mean() == pytest.approx(SMALL.entropy(), abs=4 * nats.std() / math.sqrt(len(nats)))
    # each place of a document is alike: it begins with the stationary distribution
    for place in (0, 6, 10):
        pairs = np.bincount([3 * n[place] + n[place + 1] for n in numbers], minlength=9) / 3000
        assert np.abs(pairs - SMALL.stationary).max() < 0.04


def test_the_stationary_distribution_stays():
    source = Markov(symbols=16, order=2)
    moved = np.zeros(256)
    for context in range(256):
        for symbol in range(16):
            moved[context * 16 % 256 + symbol] += source.stationary[context] * source.table[context, symbol]
    np.testing.assert_allclose(moved, source.stationary, atol=1e-12)


def test_a_source_is_its_values():
    assert list(SMALL.documents()) == list(SMALL.documents())
    other = replace(SMALL, {"seed": 1})
    assert list(other.documents()) != list(SMALL.documents())
    assert other.fingerprint() != SMALL.fingerprint()
    with pytest.raises(ConfigError, match="too large a table"):
        Markov(symbols=90, order=4)


def test_rows_are_whole_documents(tmp_path, monkeypatch):
    monkeypatch.setenv("LM_CACHE", str(tmp_path))
    dataset = load(Data(corpus=SMALL, length=SMALL.length + 1, batch=4))
    batch = dataset.batch(0)
    assert (batch["tokens"][:, 0] == batch["targets"][:, -1]).all()  # the mark that ends a document begins the next
    assert (batch["segments"] == batch["segments"][:, :1]).all()
