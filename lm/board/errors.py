"""Errors of the board."""

from __future__ import annotations

from lm.errors import UserError


class NotThere(UserError):
    """There is no such experiment, run or file in the results folder."""
