"""Masked language modelling: how many, which, and what becomes of them."""

from __future__ import annotations

import numpy as np
import pytest

from lm.config import ConfigError
from lm.objectives import Masked
from lm.objectives.words import pieces, word_starts
from tests.objectives.packed import CODEC, MASKED, packed, prepare

MASK = CODEC.vocab


def eligible(batch) -> np.ndarray:
    return (batch["weights"] > 0) & (batch["targets"] != CODEC.eot)


@pytest.mark.parametrize("rate", [0.02, 0.15, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_exactly_the_rate_is_chosen_in_each_row(rate, seed):
    batch = packed(seed)
    found = prepare(Masked(rate=rate), MASKED, batch)
    counts = eligible(batch).sum(1)
    np.testing.assert_array_equal(found["weights"].sum(1), np.maximum(1, [round(rate * int(n)) for n in counts]))
    assert not found["weights"][~eligible(batch)].any()


def test_only_what_is_chosen_changes_and_the_text_stays_the_target():
    batch = packed()
    found = prepare(Masked(rate=0.4), MASKED, batch)
    chosen = found["weights"] > 0
    np.testing.assert_array_equal(found["tokens"][~chosen], batch["targets"][~chosen])
    for name in ("targets", "positions", "segments"):
        np.testing.assert_array_equal(found[name], batch[name])
    assert (batch["segments"] == 0).any() and (batch["targets"] == CODEC.eot).any()  # there is padding, and an end


def test_every_token_is_chosen_equally_often():
    batch, times = packed(rows=2), 400
    hits = sum(prepare(Masked(rate=0.25), MASKED, batch, n=n)["weights"] for n in range(times))
    of = hits[eligible(batch)]
    spread = np.sqrt(times * 0.25 * 0.75)
    assert abs(of - 0.25 * times).max() < 5 * spread
    assert of.std() > 0.5 * spread  # fresh ones in each batch


def test_eighty_ten_ten():
    kept = masked = random = total = 0
    for n in range(200):
        batch = packed(n % 5)
        found = prepare(Masked(rate=0.5), MASKED, batch, n=n)
        chosen = found["weights"] > 0
        before, after = batch["targets"][chosen], found["tokens"][chosen]
        total += len(after)
        masked += (after == MASK).sum()
        kept += (after == before).sum()
        random += ((after != before) & (after != MASK)).sum()
    right = 0.1 / CODEC.vocab  # a random token may be the one that was there
    for count, share in ((masked, 0.8), (kept, 0.1 + right), (random, 0.1 - right)):
        assert abs(count - share * total) < 5 * np.sqrt(share * (1 - share) * total)


def test_words_are_chosen_whole():
    batch = packed()
    words = np.cumsum(word_starts(batch, CODEC), axis=1)
    some = 0
    for n in range(20):
        found = prepare(Masked(rate=0.3, unit="word"), MASKED, batch, n=n)
        for row, chosen in enumerate(found["weights"] > 0):
            mine = eligible(batch)[row]
            for word in np.unique(words[row, mine]):
                inside = chosen[mine & (words[row] == word)]
                assert inside.all() or not inside.any()
            budget = max(1, round(0.3 * int(mine.sum())))
            longest = max(np.bincount(words[row, mine]))
            assert 1 <= chosen.sum() <= max(budget, longest)
            assert chosen.sum() > budget - longest  # the word that would not fit is the first left out
            some += chosen.sum()
    assert some > 0


def test_where_words_begin():
    batch = packed(rows=2)
    ids = {piece: i for i, piece in enumerate(CODEC.pieces)}
    words = [b" we", b"re", b"ly", b".", b" ", b"in", b"\n", b" to", b"x"]
    tokens = np.array([[ids[w] for w in words] + [CODEC.eot]])
    segments = np.array([[1] * 9 + [2]])
    starts = word_starts({"targets": tokens, "segments": segments}, CODEC)
    #                             we re ly .  ␣in    \n␣to    x  next document
    assert starts[0].tolist() == [1, 0, 0, 0, 1, 0, 1, 0, 0, 1]
    assert batch["targets"].shape == word_starts(batch, CODEC).shape
    assert not pieces(CODEC).opens[CODEC.eot]


@pytest.mark.parametrize("change", [{"rate": 0.0}, {"rate": 1.5}, {"masked": 0.95}, {"random": -0.1}])
def test_what_makes_no_sense_is_refused(change):
    with pytest.raises(ConfigError, match="share"):
        Masked(**change)
