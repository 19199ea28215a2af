"""The error for data that can't be used, and the hints its messages give."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from lm.errors import UserError


class DataError(UserError, ValueError):
    """Bad data: which file and where in it, what is wrong, and what to do."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The part of a message that lists the valid names, the closest first."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listed = ", ".join(names) or "none"
    return f"did you mean '{close[0]}'? (it has: {listed})" if close else f"it has: {listed}"
