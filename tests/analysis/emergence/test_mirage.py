"""Metrics of whole answers from the rate of right tokens: against answers drawn token by token."""

from __future__ import annotations

import numpy as np
import pytest

from lm.analysis.emergence.mirage import edits_from_tokens, exact_from_tokens, per_token_needed
from lm.analysis.tables import TableError


@pytest.mark.parametrize(("rate", "length"), [(0.9, 5), (0.5, 3), (0.99, 40)])
def test_drawn_answers_agree(rate: float, length: int) -> None:
    right = np.random.default_rng(0).random((40_000, length)) < rate
    exact = right.all(1)
    assert exact_from_tokens(rate, length) == pytest.approx(exact.mean(), abs=4 * exact.std() / 200)
    wrong = (~right).sum(1)
    assert edits_from_tokens(rate, length) == pytest.approx(wrong.mean(), abs=4 * wrong.std() / 200)


def test_the_rate_that_is_needed_is_the_inverse() -> None:
    rates, lengths = np.linspace(0, 1, 11)[:, None], np.array([1, 2, 7])
    assert per_token_needed(exact_from_tokens(rates, lengths), lengths) == pytest.approx(
        np.broadcast_to(rates, (11, 3)), abs=1e-12
    )
    assert isinstance(per_token_needed(0.5, 10), float) and per_token_needed(0.5, 10) ** 10 == pytest.approx(0.5)


def test_what_is_no_share_or_length_is_refused() -> None:
    with pytest.raises(TableError, match="rate is a share"):
        exact_from_tokens([0.5, 1.2], 3)
    with pytest.raises(TableError, match="exact is a share"):
        per_token_needed(-0.1, 3)
    with pytest.raises(TableError, match="positive number of tokens"):
        edits_from_tokens(0.5, 0)
