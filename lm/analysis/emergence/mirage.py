"""What a model's rate of right tokens makes of metrics of whole answers (Schaeffer et al. 2023, "Are Emergent Abilities
of Large Language Models a Mirage?"). Tokens of an answer are taken as right or wrong independently of each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from lm.analysis.tables import TableError


def exact_from_tokens(rate: Any, length: Any) -> Any:
    """The share of answers of `length` tokens that are right in every token: rate^length (their eq. 2)."""
    rate, length = _checked(rate, length, "rate")
    return _plain(rate**length)


def edits_from_tokens(rate: Any, length: Any) -> Any:
    """The number of tokens of an answer that have to be changed: length (1 - rate) (their eq. 3)."""
    rate, length = _checked(rate, length, "rate")
    return _plain(length * (1 - rate))


def per_token_needed(exact: Any, length: Any) -> Any:
    """The rate of right tokens at which a share `exact` of the answers is right: the inverse of `exact_from_tokens`."""
    exact, length = _checked(exact, length, "exact")
    return _plain(exact ** (1 / length))


def _checked(share: Any, length: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    found, lengths = np.asarray(share, float), np.asarray(length, float)
    if np.any(found < 0) or np.any(found > 1):
        raise TableError(f"{name} is a share between 0 and 1; got values from {np.min(found):g} to {np.max(found):g}")
    if np.any(lengths <= 0):
        raise TableError(f"an answer has a positive number of tokens; got {np.min(lengths):g}")
    return found, lengths


def _plain(x: np.ndarray) -> Any:
    return float(x) if np.ndim(x) == 0 else x
