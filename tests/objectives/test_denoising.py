"""Denoising: what is read is the document with a known noise, what is written is the document."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lm.config import ConfigError
from lm.objectives import (
    Denoising,
    DocumentRotation,
    SentencePermutation,
    TextInfilling,
    TokenDeletion,
    TokenMasking,
)
from lm.objectives.documents import documents
from lm.objectives.words import sentence_starts
from tests.objectives.packed import BOTH, CODEC, PREFIX, packed, prepare

MASK = CODEC.vocab
TEXT = np.random.default_rng(0).integers(0, CODEC.eot, 60)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def subsequence(part, whole) -> bool:
    rest = iter(whole)
    return all(any(x == y for y in rest) for x in part)


def test_masking_and_deletion_take_exactly_the_rate():
    for seed in range(10):
        masked = TokenMasking(rate=0.25)(TEXT, rng(seed), CODEC)
        assert (masked == MASK).sum() == 15 and (masked[masked != MASK] == TEXT[masked != MASK]).all()
        deleted = TokenDeletion(rate=0.25)(TEXT, rng(seed), CODEC)
        assert len(deleted) == 45 and subsequence(deleted, TEXT)


def test_infilling_takes_the_rate_in_spans_of_poisson_lengths():
    """What lies between masks is the text in its order; the tokens that are gone are 30 %."""
    spans, masks = 0, 0
    for seed in range(300):
        found = TextInfilling()(TEXT, rng(seed), CODEC)
        stays = found[found != MASK]
        assert len(stays) == 60 - 18 and subsequence(stays, TEXT)
        masks += (found == MASK).sum()
        spans += 1
    # one renewal process: draws of mean 3 until 18 are there
    draws = np.array([np.searchsorted(np.cumsum(rng(10_000 + i).poisson(3, 200)), 18) + 1 for i in range(4000)])
    error = draws.std() * np.sqrt(1 / spans + 1 / len(draws))
    assert abs(masks / spans - draws.mean()) < 5 * error


def test_infilling_can_put_a_mask_between_tokens():
    lengths = {len(TextInfilling(rate=0.1, span=0.3)(TEXT, rng(seed), CODEC)) for seed in range(50)}
    assert max(lengths) > 60 - 6 + 6  # more masks than tokens that are gone


def test_sentences_are_permuted_whole():
    dot = CODEC.pieces.index(b".")
    we, ly = CODEC.pieces.index(b" we"), CODEC.pieces.index(b"ly")
    text = np.array([ly, ly, dot, we, ly, dot, dot, we, we, dot])
    assert sentence_starts(text, CODEC).tolist() == [0, 3, 7]
    parts = {tuple(text[:3]), tuple(text[3:7]), tuple(text[7:])}
    seen = Counter()
    for seed in range(600):
        found = SentencePermutation()(text, rng(seed), CODEC)
        starts = [i for i in range(10) if any(tuple(found[i : i + len(p)]) == p for p in parts)]
        assert sorted(found) == sorted(text) and len(starts) >= 3
        seen[tuple(found)] += 1
    assert len(seen) == 6 and min(seen.values()) > 100 - 5 * np.sqrt(100 * 5 / 6)


def test_rotation_is_uniform():
    text = np.arange(8)
    first = Counter(int(DocumentRotation()(text, rng(seed), CODEC)[0]) for seed in range(800))
    assert len(first) == 8 and max(abs(n - 100) for n in first.values()) < 5 * np.sqrt(100)
    found = DocumentRotation()(text, rng(1), CODEC)
    assert ((np.diff(found) % 8) == 1).all()


@pytest.mark.parametrize("model", [BOTH, PREFIX], ids=["encoder-decoder", "prefix"])
def test_documents_are_written_whole(model):
    batch = packed(3)
    found = prepare(Denoising(noises=(TokenMasking(rate=0.4),)), model, batch)
    for row in range(len(batch["tokens"])):
        parts = documents(batch, row)
        for part in parts:
            mine = found["segments"][row] == part.segment
            np.testing.assert_array_equal(found["targets"][row][mine], part.tokens)
            if model is BOTH:
                source = found["encoder_tokens"][row][found["encoder_segments"][row] == part.segment]
            else:
                source = found["tokens"][row][found["segments"][row] == -part.segment]
            same = source != MASK
            np.testing.assert_array_equal(source[same], part.tokens[same])
            assert (~same).sum() == round(0.4 * len(part.text(CODEC.eot)))
        assert found["weights"][row].sum() == sum(len(part.tokens) for part in parts)


def test_noises_follow_each_other():
    batch = packed(3)
    one = prepare(Denoising(noises=(TokenDeletion(), TokenMasking())), BOTH, batch)
    other = prepare(Denoising(noises=(TokenMasking(), TokenDeletion())), BOTH, batch)
    assert (one["encoder_tokens"] != other["encoder_tokens"]).any()
    assert (one["encoder_tokens"] == MASK).any()
    every = Denoising(noises=(TokenMasking(), SentencePermutation(), DocumentRotation(), TextInfilling()))
    assert prepare(every, BOTH, batch)["weights"].any()  # each takes what the one before it left, masks too


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        Denoising(noises=())
    for kind in (TokenMasking, TokenDeletion, TextInfilling):
        with pytest.raises(ConfigError, match="share"):
            kind(rate=0.0)
    with pytest.raises(ConfigError, match="Poisson"):
        TextInfilling(span=0.0)
