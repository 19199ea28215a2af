"""Mixtures: each row by one objective, as if by that alone."""

from __future__ import annotations

import numpy as np
import pytest

from lm.config import ConfigError
from lm.objectives import Denoiser, Denoising, Mixture, PrefixLM, SpanCorruption, TokenMasking, ul2
from lm.objectives.documents import documents
from tests.objectives.packed import BOTH, CODEC, PREFIX, packed, prepare

SPANS = SpanCorruption(rate=0.3, sentinels=5, documents=20)
MIXED = Mixture(
    parts=(Denoiser(objective=SPANS, weight=1.0, mode=0), Denoiser(objective=PrefixLM(), weight=3.0, mode=2))
)
MODES = CODEC.vocab + 5


def sources(found, row):
    segments = found["encoder_segments"][row]
    return [found["encoder_tokens"][row][segments == s] for s in np.unique(segments[segments > 0])]


def test_modes_say_which_part_made_a_row():
    counts = np.zeros(3)
    for n in range(150):
        batch = packed(n % 3)
        found = prepare(MIXED, BOTH, batch, n=n)
        for row in range(3):
            read = sources(found, row)
            (mode,) = {int(source[0]) - MODES for source in read}
            sentinels = {token for source in read for token in source[1:] if token >= CODEC.vocab}
            assert bool(sentinels) == (mode == 0) and max(sentinels, default=0) < MODES
            counts[mode] += 1
    assert counts[1] == 0
    assert abs(counts[0] - 450 / 4) < 5 * np.sqrt(450 * 3 / 16)


def test_without_modes_a_part_is_the_objective_itself():
    batch = packed()
    alone = Denoising(noises=(TokenMasking(rate=0.5),))
    for model in (BOTH, PREFIX):
        mixed = prepare(Mixture(parts=(Denoiser(objective=alone),)), model, batch)
        texts = {name: mixed[name] for name in ("targets", "weights", "positions", "segments")}
        for name, x in prepare(alone, model, batch).items():
            if name in texts:
                np.testing.assert_array_equal(texts[name], x)


def test_ul2_has_the_papers_denoisers():
    mixture = ul2(sentinels=7)
    assert mixture.extra == 7 + 3 and len(mixture.parts) == 7
    parts = {(p.objective.span, p.objective.rate) for p in mixture.parts if isinstance(p.objective, SpanCorruption)}
    assert parts == {(3, 0.15), (8, 0.15), (3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5)}
    room = mixture.room(512)
    for part in mixture.parts:
        own = part.objective.room(512)
        assert own.sources < room.sources and own.targets <= room.targets


def test_long_documents_lose_nothing_to_the_room():
    batch = packed(0, rows=3, length=200, shortest=300, longest=300)
    for n in range(20):
        found = prepare(ul2(sentinels=4, documents=1), BOTH, batch, n=n)
        assert all(
            len(sources(found, row)) == len(documents(batch, row))
            for row in range(2)
            if len(documents(batch, row)) == 1
        )
        assert found["weights"].sum(1).min() > 0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="empty"):
        Mixture(parts=())
    for change in ({"weight": 0.0}, {"mode": -1}):
        with pytest.raises(ConfigError):
            Denoiser(objective=SPANS, **change)
