"""The error for data that can't be used."""

from __future__ import annotations

from lm.errors import UserError


class DataError(UserError, ValueError):
    """Bad data: which file and where in it, what is wrong, and what to do."""
