"""Log-spaced steps."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.config import ConfigError
from lm.train.spaced import log_spaced


@given(st.integers(1, 10**7), st.integers(1, 8), st.integers(1, 50))
def test_properties(steps, per_octave, first):
    found = log_spaced(steps, per_octave, first)
    assert found[-1] == steps and found[0] == min(first, steps)
    assert all(type(step) is int for step in found)
    assert all(a < b for a, b in itertools.pairwise(found))
    longer = log_spaced(3 * steps, per_octave, first)
    assert set(found[:-1]) <= set(longer)
    for a, b in itertools.pairwise(found[:-1]):
        assert b <= a * 2 ** (1 / per_octave) + 1 + 1 / per_octave


def test_known_values():
    assert log_spaced(10) == (1, 2, 3, 4, 6, 8, 10)
    assert log_spaced(64, per_octave=1) == (1, 2, 4, 8, 16, 32, 64)
    assert log_spaced(1) == (1,)


def test_refuses_nonsense():
    with pytest.raises(ConfigError, match="steps=0"):
        log_spaced(0)
