"""Kneser-Ney against its formulas in dictionaries, a sum by hand, sources of known entropy, and weaker smoothings."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.config import ConfigError
from lm.data import KJV, Data, DataError, load
from lm.data.synthetic import Markov
from lm.early import NGram, NGramModel, Stream, of_batches, stream
from lm.early.ngram import USUAL, estimated
from tests.tiny import packed

Documents = list[list[int]]


class Formulas:
    """Chen and Goodman's definition, one probability at a time."""

    def __init__(self, documents: Documents, order: int, vocab: int, discounts: tuple[float, ...] | None) -> None:
        self.order, self.vocab = order, vocab
        raw: Counter[tuple[int, ...]] = Counter()
        before: defaultdict[tuple[int, ...], set[Any]] = defaultdict(set)
        for number, document in enumerate(documents):
            for end in range(2, len(document) + 1):
                for n in range(1, min(order, end) + 1):
                    gram = tuple(document[end - n : end])
                    raw[gram] += n == order
                    before[gram].add(document[end - n - 1] if end > n else ("start", number))
        self.counts = {g: raw[g] if len(g) == order else len(b) for g, b in before.items()}
        self.discounts = {n: discounts or self.of_counts(n) for n in range(1, order + 1)}

    def of_counts(self, n: int) -> tuple[float, ...]:
        n1, n2, n3, n4 = (sum(c == k for g, c in self.counts.items() if len(g) == n) for k in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return 0.5, 1.0, 1.5
        y = n1 / (n1 + 2 * n2)
        found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        return found if all(0 < d <= k for k, d in enumerate(found, 1)) else (0.5, 1.0, 1.5)

    def discount(self, gram: tuple[int, ...]) -> float:
        found = self.discounts[len(gram)]
        count = self.counts.get(gram, 0)
        return found[min(count, len(found)) - 1] if count else 0.0

    def p(self, word: int, context: tuple[int, ...]) -> float:
        context = context[len(context) - min(self.order - 1, len(context)) :]
        lower = self.p(word, context[1:]) if context else 1 / self.vocab
        grams = [(*context, w) for w in range(self.vocab)]
        total = sum(self.counts.get(g, 0) for g in grams)
        if not total:
            return lower
        own = (self.counts.get((*context, word), 0) - self.discount((*context, word))) / total
        return own + sum(map(self.discount, grams)) / total * lower


def drawn(seed: int, count: int, vocab: int, longest: int = 30) -> Documents:
    """Documents in which a token often repeats the one two before it."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        document: list[int] = []
        for place in range(int(rng.integers(1, longest))):
            again = place > 1 and rng.random() < 0.6
            document.append(document[-2] if again else int(rng.zipf(1.5)) % vocab)
        out.append(document)
    return out


@pytest.mark.parametrize("discounts", [None, (0.75,), (0.4, 0.9, 1.2, 2.0)], ids=str)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_is_the_formulas(order: int, discounts: tuple[float, ...] | None) -> None:
    documents, heldout, vocab = drawn(0, 60, 6), drawn(1, 12, 6), 7
    model, slow = NGram(order=order, discounts=discounts).fit(stream(documents), vocab), Formulas(
        documents, order, vocab, discounts
    )  # fmt: skip
    found = model.log_probs(stream(heldout))
    at = 0
    for document in heldout:
        assert np.isnan(found[at])
        for i in range(1, len(document)):
            context = tuple(document[:i])
            assert found[at + i] == pytest.approx(math.log(slow.p(document[i], context)), abs=1e-10)
            np.testing.assert_allclose(model.next(context), [slow.p(w, context) for w in range(vocab)], atol=1e-12)
        at += len(document)
    if discounts is None and order > 2:
        assert len({slow.discounts[n] for n in range(2, order + 1)} - {USUAL}) >= 1


def test_a_sum_by_hand() -> None:
    """a b a b a c: one token precedes each of a, b and c, so p(w) = 1/6 + 1/2 1/3; after a come b twice and c once."""
    model = NGram(order=2, discounts=(0.5,)).fit(stream([[0, 1, 0, 1, 0, 2]]), 3)
    np.testing.assert_allclose(model.next([]), [1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(model.next([0]), [2 / 18, 11 / 18, 5 / 18])
    np.testing.assert_allclose(model.next([1]), [1.5 / 2 + 0.25 / 3, 0.25 / 3, 0.25 / 3])
    np.testing.assert_allclose(model.next([2]), model.next([]))  # nothing came after c
    # with a fourth token that never occurs: the uniform share of the lowest order
    wider = NGram(order=2, discounts=(0.5,)).fit(stream([[0, 1, 0, 1, 0, 2]]), 4)
    assert wider.next([])[3] == pytest.approx(0.5 / 4) and wider.next([0])[3] == pytest.approx(1 / 3 * 0.5 / 4)


def test_discounts_of_counts_of_counts() -> None:
    """Ten once, four twice, two three times, one four times: y = 10/18."""
    counts = np.repeat([1, 2, 3, 4, 9], [10, 4, 2, 1, 3])
    y = 10 / 18
    assert estimated(counts) == pytest.approx((1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.5))
    assert estimated(np.array([1, 2, 3, 9])) == USUAL


@cache
def small() -> NGramModel:
    return NGram(order=4).fit(stream(drawn(2, 200, 9)), 12)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 11), max_size=8))
def test_probabilities_sum_to_one(context: list[int]) -> None:
    p = small().next(context)
    assert p.sum() == pytest.approx(1, abs=1e-12) and (p > 0).all()


def test_documents_do_not_leak_into_each_other() -> None:
    documents = drawn(3, 40, 5)
    one, other = (NGram(order=3).fit(stream(docs), 5) for docs in (documents, documents[::-1]))
    for a, b in zip(one.levels, other.levels, strict=True):
        for name in ("keys", "share", "rest"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    joined = NGram(order=3).fit(stream([[token for document in documents for token in document]]), 5)
    assert len(joined.levels[2].keys) > len(one.levels[2].keys)
    heldout = drawn(4, 6, 5)
    alone = np.concatenate([one.log_probs(stream([document])) for document in heldout])
    np.testing.assert_array_equal(one.log_probs(stream(heldout)), alone)


def test_samples_have_the_probabilities() -> None:
    model, rng = small(), np.random.default_rng(0)
    found = [tuple(model.sample(2, [3, 1], rng)) for _ in range(4000)]
    expected = model.next([3, 1])
    first = np.bincount([a for a, _ in found], minlength=12) / 4000
    assert np.abs(first - expected).max() < 4 * 0.5 / math.sqrt(4000)
    top = int(expected.argmax())
    after = np.bincount([b for a, b in found if a == top], minlength=12)
    assert np.abs(after / after.sum() - model.next([3, 1, top])).max() < 4 * 0.5 / math.sqrt(after.sum())


def test_on_a_markov_source_it_comes_to_the_entropy() -> None:
    """Of the same held-out symbols under the source's own table; the excess falls with the data."""
    source = Markov(symbols=12, order=2, documents_count=5500, length=100)
    documents = [np.frombuffer(text.encode(), np.uint8) - ord("a") for text in source.documents()]
    heldout = stream(documents[5000:])
    known = heldout.positions >= 2
    tokens = heldout.tokens
    context = 12 * np.roll(tokens, 2) + np.roll(tokens, 1)
    best = -np.log(source.table[context, tokens])[known].mean()
    assert best == pytest.approx(source.entropy_rate(), abs=0.02)
    excess = []
    for count in (50, 500, 5000):
        model = NGram(order=3).fit(stream(documents[:count]), 12)
        excess.append(-model.log_probs(heldout)[known].mean() - best)
    assert 0.1 < excess[0] < 0.4 and excess[0] > 4 * excess[1] > 16 * excess[2] > 0
    assert excess[2] < 0.003


@cache
def bible() -> tuple[Stream, Stream]:
    chapters = [[255, *text.encode(), 255] for text in list(KJV().documents())[:80]]
    return stream([c for i, c in enumerate(chapters) if i % 8]), stream(chapters[::8])


def nats(model: NGramModel, heldout: Stream) -> float:
    return -float(np.nanmean(model.log_probs(heldout)))


def test_it_beats_weaker_smoothing_on_held_out_text() -> None:
    train, heldout = bible()
    counts = [Counter[tuple[int, ...]]() for _ in range(6)]
    for document in np.split(train.tokens, np.flatnonzero(train.starts)[1:]):
        for n in range(1, 6):
            counts[n].update(zip(*(document[i:].tolist() for i in range(n)), strict=False))
    totals = [Counter[tuple[int, ...]]() for _ in range(6)]
    for n in range(1, 6):
        for gram, count in counts[n].items():
            totals[n][gram[:-1]] += count

    grams = [
        tuple(heldout.tokens[max(0, i - min(4, p)) : i + 1].tolist())
        for i, p in enumerate(heldout.positions)
        if p > 0
    ]  # fmt: skip

    def add_one(order: int) -> float:
        short = [g[-order:] for g in grams]
        return -np.mean([math.log((counts[len(g)][g] + 1) / (totals[len(g)][g[:-1]] + 256)) for g in short])

    def interpolated(weight: float) -> float:
        """weight times an order's relative frequency, the rest for the next lower one, where it was seen at all."""

        def p(gram: tuple[int, ...]) -> float:
            if not gram:
                return 1 / 256
            total, lower = totals[len(gram)][gram[:-1]], p(gram[1:])
            return weight * counts[len(gram)][gram] / total + (1 - weight) * lower if total else lower

        return -np.mean([math.log(p(g)) for g in grams])

    modified = nats(NGram(order=5).fit(train, 256), heldout)
    absolute = nats(NGram(order=5, discounts=(0.75,)).fit(train, 256), heldout)
    assert modified < absolute  # as Chen and Goodman found
    assert absolute < min(interpolated(w) for w in (0.5, 0.6, 0.7, 0.8)) - 0.02  # with the best weight, by hindsight
    assert absolute < min(add_one(order) for order in range(1, 6)) - 0.2
    assert nats(NGram(order=2).fit(train, 256), heldout) > modified + 0.5


def test_bits_per_byte() -> None:
    train, heldout = bible()
    model = NGram(order=3).fit(train, 256)
    found = model.bits_per_byte(heldout, np.array([1] * 255 + [0]))
    predicted = ~heldout.starts
    text_bytes = (heldout.tokens != 255).sum()
    assert found == pytest.approx(-model.log_probs(heldout)[predicted].sum() / math.log(2) / text_bytes)
    assert 2 < found < 4


class TestStream:
    def test_of_documents(self) -> None:
        found = stream([[1, 2], [], [3], [4, 5, 6]])
        assert found.tokens.tolist() == [1, 2, 3, 4, 5, 6]
        assert found.starts.tolist() == [True, False, True, True, False, False]
        assert found.positions.tolist() == [0, 1, 0, 0, 1, 2] and found.document.tolist() == [0, 0, 1, 2, 2, 2]
        assert len(stream([]).tokens) == 0

    def test_of_batches_it_predicts_each_target_from_what_a_network_sees(self) -> None:
        batch = packed(rows=3)
        expected = []
        for tokens, targets, segments in zip(batch["tokens"], batch["targets"], batch["segments"], strict=True):
            for document in np.unique(segments[segments > 0]):
                at = np.flatnonzero(segments == document)
                expected.append([*tokens[at], targets[at[-1]]])
        wanted, found = stream(expected), of_batches([batch])
        np.testing.assert_array_equal(found.tokens, wanted.tokens)
        np.testing.assert_array_equal(found.starts, wanted.starts)
        assert (~found.starts).sum() == (batch["segments"] > 0).sum()

    def test_of_a_datasets_batches(self) -> None:
        source = Markov(symbols=4, documents_count=300, length=15)
        dataset = load(Data(corpus=source, length=16, batch=4))
        found = of_batches(dataset.heldout_batches())
        assert (found.tokens[found.starts] == dataset.tokenizer.eot).all()  # rows are whole documents here
        assert (~found.starts).sum() == sum((b["weights"] > 0).sum() for b in dataset.heldout_batches())

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"starts\[0\] is False"):
            Stream(np.array([1, 2]), np.array([False, True]))
        with pytest.raises(DataError, match="vectors of one length"):
            Stream(np.array([1, 2]), np.array([True]))


def test_misfits_are_refused() -> None:
    with pytest.raises(ConfigError, match="order=0 must be at least 1"):
        NGram(order=0)
    with pytest.raises(ConfigError, match=r"discount 1\.5 of a count of 1 must be above 0, at most 1"):
        NGram(discounts=(1.5,))
    with pytest.raises(ConfigError, match="discount"):
        NGram(discounts=())
    with pytest.raises(DataError, match="tokens 1 to 7 aren't all in 0 to 4; raise vocab"):
        NGram().fit(stream([[1, 7]]), 5)
    with pytest.raises(DataError, match="no document has two tokens"):
        NGram().fit(stream([[1], [2]]), 5)
