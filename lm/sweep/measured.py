"""Measurements that are kept, so that each is made once: rows of a file, by a key that says of what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm.train.rows import Rows, read


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """Everything that was measured, by key; of two with one key the later."""
    return {row["key"]: row for row in read(path)}


def keep(path: Path, key: str, **numbers: Any) -> None:
    with Rows(path) as file:
        file.append({"key": key, **numbers})
