"""The plain files of one run, read as JSON: a run whose classes are gone or have changed can be shown, too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.board.errors import NotThere
from lm.board.words import NOTHING
from lm.errors import UserError
from lm.sweep.status import last_rows
from lm.train.rows import NONFINITE


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder holds, each part as it is now."""

    path: Path

    def config(self) -> dict[str, Any]:
        """Every field by its dotted path; a component's path holds its type. {} before the run has begun."""
        return flat(self._json("config.json"))

    def provenance(self) -> tuple[str | None, list[dict[str, Any]]]:
        """The fingerprint of the data, and what is known of each start."""
        found = self._json("provenance.json")
        starts = found.get("starts") or ([found] if found else [])  # earlier versions kept the last start alone
        return found.get("data"), starts

    def traceback(self) -> str:
        try:
            return (self.path / "traceback.txt").read_text(errors="replace")
        except OSError:
            return ""

    def last_rows(self) -> list[dict[str, Any]]:
        """The newest rows, oldest first; what wasn't finite by its name ("nan")."""
        path = self.path / "rows.jsonl"
        try:
            return [{**row, **row.pop(NONFINITE, {})} for row in last_rows(path)]
        except ValueError as error:
            raise UserError(f"the end of {path} isn't JSON ({error}); remove that line to read the rest") from None

    def _json(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / name} can't be read: {error}") from None
        if not isinstance(found, dict):
            raise UserError(f"{self.path / name} can't be read: it holds no JSON object")
        return found


def flat(value: dict[str, Any], path: str = "") -> dict[str, Any]:
    """A nested table as {dotted path: leaf}. The type of a component stands at the component's own path."""
    found: dict[str, Any] = {}
    for key, part in value.items():
        here = path if key == "type" and path else f"{path}.{key}" if path else key
        items = part if isinstance(part, dict) else dict(enumerate(part)) if _nested(part) else None
        if items:
            found.update(flat({str(k): v for k, v in items.items()}, here))
        else:
            found[here] = part
    return found


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, value in a, value in b) wherever two flat tables differ, in order; `MISSING` where there is no path."""
    paths = dict.fromkeys([*a, *b])
    pairs = ((path, a.get(path, MISSING), b.get(path, MISSING)) for path in paths)
    return [(path, left, right) for path, left, right in pairs if left is MISSING or right is MISSING or left != right]


class _Missing:
    def __repr__(self) -> str:
        return NOTHING


MISSING = _Missing()


def inside(folder: Path, name: str) -> Path:
    """The entry `name` of `folder`, as long as it is really in there. Raises NotThere.

    A name that isn't one plain step down (`..`, `a/b`, a hidden file) is refused before the disk is asked, and so is
    a link that leads out of the folder.
    """
    plain = name and not name.startswith(".") and name == Path(name).name and "\0" not in name and "\\" not in name
    root = folder.resolve()
    if not plain or (root / name).resolve().parent != root:
        raise NotThere(f"there is no {name!r} in {folder}")
    return root / name


def _nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
