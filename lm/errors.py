"""Errors a user can act on. The command line prints their one line and no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What is wrong, where, and what to do, in one line."""

    exit_code = 1  # of a command that it ends


def unknown(key: str, known: Iterable[object], what: str) -> str:
    """The words of an error about a name that does not exist, with the nearest that does."""
    folded = {str(k).casefold(): str(k) for k in known}
    close = difflib.get_close_matches(key.casefold(), folded, n=1, cutoff=0.5)
    hint = f"; did you mean '{folded[close[0]]}'?" if close else f"; it has: {', '.join(folded.values()) or 'none'}"
    return f"{what} '{key}'{hint}"
