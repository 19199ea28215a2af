"""Blank infilling: part A and part B are the document, and only blanks are predicted."""

from __future__ import annotations

import numpy as np
import pytest

from lm.config import ConfigError
from lm.objectives import BlankInfilling
from lm.objectives.documents import documents
from lm.objectives.spans import poisson_lengths
from tests.objectives.packed import BOTH, CODEC, PREFIX, packed, prepare

FEW = BlankInfilling(rate=0.3, span=1.5, marks=12, documents=12)


def filled(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> tuple[list[int], list[int]]:
    """The document, and its marks in the order in which part B has them."""
    cuts = np.flatnonzero(target >= CODEC.vocab)
    blanks = {}
    for part, counts in zip(np.split(target, cuts)[1:], np.split(weights, cuts)[1:], strict=True):
        assert part[-1] == CODEC.eot and len(part) > 2  # a mark, tokens, an end
        assert counts[0] == 0 and (counts[1:] == 1).all()
        blanks[int(part[0])] = part[1:-1].tolist()
    out: list[int] = []
    for token in source:
        out += blanks[int(token)] if token >= CODEC.vocab else [int(token)]
    marks = source >= CODEC.vocab
    assert not (marks[1:] & marks[:-1]).any()  # a token between any two
    assert source[marks].tolist() == [CODEC.vocab + i for i in range(len(blanks))]
    return out, list(blanks)


@pytest.mark.parametrize("model", [BOTH, PREFIX], ids=["encoder-decoder", "prefix"])
def test_part_a_and_part_b_are_the_document(model):
    shuffled = whole = 0
    for seed in range(6):
        batch = packed(seed, length=64)
        found = prepare(FEW, model, batch, n=seed)
        for row in range(len(batch["tokens"])):
            lost = 0
            for part in documents(batch, row):
                mine = found["segments"][row] == part.segment
                if not mine.any():
                    assert len(part.text(CODEC.eot)) < 7  # too short to lose a token
                    continue
                if model is BOTH:
                    source = found["encoder_tokens"][row][found["encoder_segments"][row] == part.segment]
                else:
                    source = found["tokens"][row][found["segments"][row] == -part.segment]
                target, weights = found["targets"][row][mine], found["weights"][row][mine]
                text, order = filled(source, target, weights)
                assert text == part.tokens.tolist()
                lost += (target < CODEC.eot).sum()
                shuffled += order != sorted(order)
                whole += 1
            texts = [len(part.text(CODEC.eot)) for part in documents(batch, row)]
            assert abs(lost - 0.3 * sum(texts)) <= 1.5
    assert shuffled > whole / 4 > 3


def test_lengths_add_up_and_are_poisson():
    rng, first = np.random.default_rng(0), []
    for total in range(1, 60):
        for most in (1, 3, 60):
            found = poisson_lengths(total, 3.0, most, rng)
            assert found.sum() == total and found.min() >= 1 and len(found) <= most
    first = np.array([poisson_lengths(1000, 3.0, 1000, rng)[0] for _ in range(4000)])
    mean = 3 + np.exp(-3)  # a Poisson number, with 1 for 0
    assert abs(first.mean() - mean) < 5 * np.sqrt(3 / 4000)


def test_a_blank_may_be_at_either_end():
    ends = np.zeros(2)
    for n in range(60):
        found = prepare(FEW, BOTH, packed(0, rows=2, length=40, shortest=80, longest=80), n=n)
        source = found["encoder_tokens"][0][found["encoder_segments"][0] > 0]
        ends += source[0] >= CODEC.vocab, source[source != CODEC.eot][-1] >= CODEC.vocab
    assert (ends > 3).all() and (ends < 57).all()


@pytest.mark.parametrize("change", [{"rate": 1.0}, {"span": 0.0}, {"marks": 0}, {"documents": 0}])
def test_what_makes_no_sense_is_refused(change):
    with pytest.raises(ConfigError):
        BlankInfilling(**change)
