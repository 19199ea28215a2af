"""Span corruption: exact counts, and nothing of a document is lost or added."""

from __future__ import annotations

import numpy as np
import pytest

from lm.config import ConfigError
from lm.objectives import SpanCorruption
from lm.objectives.documents import documents
from lm.objectives.spans import composition, shared
from tests.objectives.packed import BOTH, CODEC, PREFIX, packed, prepare

WIDE = SpanCorruption(rate=0.3, span=2.0, sentinels=12, documents=20)


def merged(source: np.ndarray, target: np.ndarray) -> list[int]:
    """The document of a source and a target."""
    assert target[-1] == CODEC.eot
    cuts = np.flatnonzero(target >= CODEC.vocab)
    spans = {int(part[0]): part[1:] for part in np.split(target[:-1], cuts) if len(part)}
    assert list(spans) == [CODEC.vocab + i for i in range(len(spans))]
    out: list[int] = []
    for token in source:
        out += list(spans.pop(int(token))) if token >= CODEC.vocab else [int(token)]
    assert not spans
    return out


def pairs_of(found, row: int):
    """segment -> (source, target) of a row, from either form."""
    out = {}
    for segment in np.unique(abs(found["segments"][row])):
        if segment:
            mine = found["segments"][row] == segment
            if "encoder_tokens" in found:
                source = found["encoder_tokens"][row][found["encoder_segments"][row] == segment]
            else:
                source = found["tokens"][row][found["segments"][row] == -segment]
            out[int(segment)] = source, found["targets"][row][mine]
            given = found["tokens"][row][mine]
            assert given[0] == CODEC.eot and (given[1:] == found["targets"][row][mine][:-1]).all()
    return out


@pytest.mark.parametrize("model", [BOTH, PREFIX], ids=["encoder-decoder", "prefix"])
@pytest.mark.parametrize("seed", range(4))
def test_source_and_target_are_the_document(model, seed):
    batch = packed(seed, length=64)
    found = prepare(WIDE, model, batch, n=seed)
    whole = 0
    for row in range(len(batch["tokens"])):
        parts = {part.segment: part for part in documents(batch, row)}
        pairs = pairs_of(found, row)
        for segment, (source, target) in pairs.items():
            assert merged(source, target) == parts[segment].tokens.tolist()
        long = {part.segment for part in parts.values() if len(part.tokens) > 6}
        assert long <= set(pairs)  # there is room for all, and only the short have nothing to lose
        whole += len(pairs)
    assert whole > 4


def test_positions_segments_and_padding():
    for model in (BOTH, PREFIX):
        found = prepare(WIDE, model, packed(1, length=64))
        sides = ["", "encoder_"] if model is BOTH else [""]
        for side in sides:
            segments, positions = abs(found[f"{side}segments"]), found[f"{side}positions"]
            for row in range(len(segments)):
                real = segments[row] > 0
                assert (np.diff(segments[row][real]) >= 0).all() and not real[real.sum() :].any()
                for segment in np.unique(segments[row][real]):
                    mine = positions[row][segments[row] == segment]
                    np.testing.assert_array_equal(mine, np.arange(len(mine)))
                assert not found[f"{side}tokens"][row][~real].any()
        np.testing.assert_array_equal(found["weights"] > 0, found["segments"] > 0)


@pytest.mark.parametrize(("rate", "span"), [(0.15, 3.0), (0.5, 3.0), (0.15, 8.0), (0.5, 32.0), (0.05, 1.0)])
@pytest.mark.parametrize("n", [100, 128, 333])
def test_the_counts_of_one_document_are_those_of_the_paper(rate, span, n):
    """round(rate n) tokens in round(noise / span) spans; and its room is exactly what it needs."""
    objective = SpanCorruption(rate=rate, span=span, documents=1)
    tokens = np.random.default_rng(0).integers(0, CODEC.eot, (1, n)).astype(np.int32)
    ones = np.ones_like(tokens)
    batch = {
        "tokens": tokens,
        "targets": tokens,
        "segments": ones,
        "positions": ones,
        "weights": ones.astype(np.float32),
    }
    found = prepare(objective, BOTH, batch)
    (source, target) = pairs_of(found, 0)[1]
    noise = round(rate * n + 1e-9)
    spans = max(1, int(noise / span + 0.5))
    assert (target < CODEC.eot).sum() == noise
    assert (target >= CODEC.vocab).sum() == spans == (source >= CODEC.vocab).sum()
    assert found["targets"].shape[1] == len(target) == noise + spans + 1
    assert found["encoder_tokens"].shape[1] - len(source) in (0, 1)
    assert len(source) == n - noise + spans


def test_a_row_of_documents_loses_the_rate():
    for seed in range(5):
        batch = packed(seed, length=96, shortest=8)
        found = prepare(WIDE, BOTH, batch, n=seed)
        for row in range(len(batch["tokens"])):
            texts = [len(part.text(CODEC.eot)) for part in documents(batch, row)]
            lost = ((found["targets"][row] < CODEC.eot) & (found["segments"][row] > 0)).sum()
            assert lost == int(0.3 * sum(texts) + 0.5)


def test_what_has_no_room_is_left_out_whole():
    batch = packed(0, length=96, longest=6)
    narrow = SpanCorruption(rate=0.3, span=2.0, documents=1)
    found = prepare(narrow, BOTH, batch)
    left = 0
    for row in range(len(batch["tokens"])):
        parts, pairs = {part.segment: part for part in documents(batch, row)}, pairs_of(found, row)
        for segment, (source, target) in pairs.items():
            assert merged(source, target) == parts[segment].tokens.tolist()
        read = set(found["encoder_segments"][row]) - {0}
        assert read == set(pairs)
        left += len(parts) - len(pairs)
    assert left > 0


def test_a_single_span_may_be_anywhere():
    batch, starts = packed(rows=2, length=21, shortest=80, longest=80), []
    for n in range(400):
        found = prepare(SpanCorruption(rate=0.1, span=2.0), BOTH, batch, n=n)
        source = found["encoder_tokens"][0][found["encoder_segments"][0] > 0]
        starts.append(int(np.flatnonzero(source >= CODEC.vocab)[0]))
    counts = np.bincount(starts)
    assert len(counts) == 20 and abs(counts - 20).max() < 5 * np.sqrt(20)


def test_all_ways_to_cut_are_equally_likely():
    """The 6 sums of 3 positive numbers to 5."""
    rng, times = np.random.default_rng(0), 3000
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(times):
        parts = tuple(composition(5, 3, rng).tolist())
        assert sum(parts) == 5 and min(parts) >= 1
        seen[parts] = seen.get(parts, 0) + 1
    assert len(seen) == 6
    assert all(abs(count - times / 6) < 5 * np.sqrt(times * 5 / 36) for count in seen.values())


def test_shares_add_up():
    sizes = np.random.default_rng(0).integers(0, 20, 50)
    found = shared(sizes, 0.15)
    assert found.sum() == int(0.15 * sizes.sum() + 0.5)
    assert (abs(found - 0.15 * sizes) < 1).all()


@pytest.mark.parametrize("change", [{"rate": 0.0}, {"rate": 1.0}, {"span": 0.5}, {"sentinels": 0}, {"documents": 0}])
def test_what_makes_no_sense_is_refused(change):
    with pytest.raises(ConfigError):
        SpanCorruption(**change)
