"""Values as the pages say them."""

from __future__ import annotations

import json
import time
from typing import Any

from lm.train.progress import duration

__all__ = ["NOTHING", "ago", "cell", "duration", "literal", "memory"]

NOTHING = "\N{EN DASH}"  # stands where a value is missing


def ago(when: float) -> str:
    """A time (seconds since 1970) by how long ago it was; 0: never."""
    if not when:
        return NOTHING
    seconds = max(time.time() - when, 0)
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            n = int(seconds // size)
            return f"{n} {name}{'s' if n > 1 else ''} ago"
    return "just now"


def cell(value: Any) -> str:
    """A number of a metrics row: as many digits as say something."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e12 else f"{value:.4g}"
    return f"{value:.4f}" if size >= 0.01 or size == 0 else f"{value:.3g}"


def literal(value: Any) -> str:
    """A value of a config, as an override would give it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)


def memory(size: float) -> str:
    """Bytes as 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"
