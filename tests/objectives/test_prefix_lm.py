"""Prefix language modelling: the same targets after a prefix in one sequence and in two."""

from __future__ import annotations

import numpy as np
import pytest

from lm.config import ConfigError
from lm.objectives import PrefixLM
from lm.objectives.documents import documents
from tests.objectives.packed import BOTH, CODEC, PREFIX, packed, prepare


@pytest.mark.parametrize("seed", range(4))
def test_in_one_sequence_and_in_two(seed):
    batch = packed(seed)
    one, two = (prepare(PrefixLM(), model, batch, n=seed) for model in (PREFIX, BOTH))
    trained = 0
    for row in range(len(batch["tokens"])):
        for part in documents(batch, row):
            weights, marks = one["weights"][row, part.place], one["segments"][row, part.place] < 0
            source = two["encoder_tokens"][row][two["encoder_segments"][row] == part.segment]
            mine = two["segments"][row] == part.segment
            if len(part.tokens) < 2:
                assert not weights.any() and not marks.any() and not len(source) and not mine.any()
                continue
            cut = len(source)
            assert 1 <= cut < len(part.tokens)
            np.testing.assert_array_equal(weights, np.arange(len(weights)) >= cut)
            np.testing.assert_array_equal(marks, np.arange(len(weights)) <= cut)
            np.testing.assert_array_equal(np.concatenate([source, two["targets"][row][mine]]), part.tokens)
            assert two["tokens"][row][mine][0] == CODEC.eot
            assert two["weights"][row][mine].all()
            trained += 1
    assert trained > 3
    for name in ("tokens", "targets", "positions"):
        np.testing.assert_array_equal(one[name], batch[name])
    np.testing.assert_array_equal(abs(one["segments"]), batch["segments"])


def test_cuts_are_uniform_in_the_limits():
    batch = packed(rows=2, length=40, shortest=60, longest=60)
    cuts = []
    for n in range(600):
        found = prepare(PrefixLM(least=0.2, most=0.5), PREFIX, batch, n=n)
        cuts.append(int(found["weights"][0].sum()))
    n = len(documents(batch, 0)[0].tokens)
    assert set(cuts) == set(range(int(np.ceil(0.2 * n)), int(0.5 * n) + 1))
    counts = np.bincount(cuts)[min(cuts) :]
    assert abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())


def test_something_that_counts_is_left():
    """In tasks only answers count, and padding follows them."""
    batch = packed(0, rows=2, length=20, shortest=60, longest=60)
    batch["weights"][:] = 0
    batch["weights"][:, 9:11] = 1
    for n in range(40):
        for model in (PREFIX, BOTH):
            found = prepare(PrefixLM(), model, batch, n=n)
            assert 1 <= found["weights"][0].sum() <= 2


@pytest.mark.parametrize("limits", [(0.5, 0.2), (-0.1, 0.5), (0.0, 0.0), (0.0, 1.1)])
def test_what_makes_no_sense_is_refused(limits):
    with pytest.raises(ConfigError, match="shares"):
        PrefixLM(least=limits[0], most=limits[1])
