"""A run's folder: what is in it and what state it says the run is in."""

from __future__ import annotations

import contextlib
import json
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lm.config import diff, dumps, loads
from lm.errors import UserError
from lm.files import write_atomically
from lm.train.lock import held
from lm.train.run import Run

Status = Literal["new", "running", "interrupted", "failed", "done"]


class RunError(UserError):
    """A run's folder that can't be used."""


PATIENCE = 5  # deaths without a word that count as one failure


class GaveUp(UserError):
    """A run that died again and again at the same place."""

    final = True


@dataclass(frozen=True)
class RunFolder:
    """config.json, provenance.json, tokenizer.json, rows.jsonl, checkpoints/ and, at the end, result.json or
    failure.json (with traceback.txt); tries.json while it isn't done. Where the run asks for them, details.jsonl of
    its measures, and snapshots/ of its weights."""

    path: Path

    @property
    def rows(self) -> Path:
        return self.path / "rows.jsonl"

    @property
    def details(self) -> Path:
        return self.path / "details.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    def status(self) -> Status:
        if (self.path / "result.json").exists():
            return "done"
        if held(self.path):
            return "running"
        if (self.path / "failure.json").exists():
            return "failed"
        return "interrupted" if (self.path / "config.json").exists() else "new"

    def check(self, run: Run, data: str) -> None:
        """Raises RunError if the folder is of another run, or of the same one on other data (`data`: a fingerprint)."""
        if not (self.path / "config.json").exists():
            return
        changes = diff(self.config(), run)
        if changes:
            path, (old, new) = next(iter(changes.items()))
            more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
            raise RunError(
                f"{self.path} holds another run ({path} is {old} there, {new} here{more}); use another folder"
            )
        if self.data() != data:
            raise RunError(
                f"the data has changed since the run in {self.path} began ({self.data()} then, {data} now); "
                "put the old data back, or use another folder"
            )

    def create(self, run: Run, tokenizer: str, data: str, facts: dict[str, Any]) -> None:
        """Makes the folder or checks that an existing one is this run's, and notes this start. Forgets a failure.

        tokenizer: its text form, so that the run can be used without its corpus. facts: where this start came from.
        """
        self.check(run, data)
        self.path.mkdir(parents=True, exist_ok=True)
        starts = self._provenance()["starts"] if (self.path / "provenance.json").exists() else []
        self._write("config.json", dumps(run, indent=2))
        self._write("tokenizer.json", tokenizer)
        self._write("provenance.json", json.dumps({"data": data, "starts": [*starts, facts]}, indent=2))
        self._remove("failure.json", "traceback.txt")

    def config(self) -> Run:
        """The run this folder is of."""
        file = self.path / "config.json"
        if not file.exists():
            raise RunError(f"{self.path} is no run's folder: it has no config.json")
        return loads(file.read_text())

    def data(self) -> str:
        """The fingerprint of the data that the run was begun with."""
        return self._provenance()["data"]

    def starts(self) -> list[dict[str, Any]]:
        """Where each start of the run came from (see `lm.train.provenance`)."""
        return self._provenance()["starts"]

    def result(self) -> dict[str, Any]:
        """The numbers of a finished run."""
        return json.loads((self.path / "result.json").read_text())

    def failure(self) -> str:
        """Why a failed run failed, in one line; "" if it is tried again by now."""
        return self._failure().get("error", "")

    def failed_for_good(self) -> bool:
        """Whether a failure is one that trying again doesn't help, or was tried often enough. `retry` forgets it."""
        return self._failure().get("final", False)

    def diverged(self) -> bool:
        """Whether it failed because its loss or gradient became no number."""
        return self._failure().get("kind") == "Diverged"

    def _failure(self) -> dict[str, Any]:
        """What is known of a failure, {} of none: its file goes away the moment another process tries again."""
        try:
            return json.loads((self.path / "failure.json").read_text())
        except FileNotFoundError:
            return {}

    def count_try(self, step: int, limit: int) -> None:
        """Notes that training starts at `step`. Raises GaveUp if it did so `limit` times before and never got on.

        A process that is killed leaves no word; its start is all that is known of it. Since that is more often the
        fate of the process than the fault of the run, it takes PATIENCE times as many.
        """
        before = self._tries()
        tries = before["tries"] if before["step"] == step else 0
        if tries >= (limit if before.get("error") else limit * PATIENCE):
            said = f": {before['error']}" if before.get("error") else " without a word, as a killed process does"
            raise GaveUp(f"given up after {tries} tries from step {step}; the last ended{said}")
        self._write("tries.json", json.dumps({"step": step, "tries": tries + 1}))

    def retry(self) -> None:
        """Forgets failures and tries, so that the run is done again from its newest checkpoint."""
        self._remove("failure.json", "traceback.txt", "tries.json")

    def forgive(self) -> None:
        """Forgets the tries: they were the fault of a machine. What the failure said stays."""
        self._remove("tries.json")

    def finish(self, result: dict[str, Any]) -> None:
        self._write("result.json", json.dumps(result, indent=2, allow_nan=False))
        self._remove("tries.json")

    def fail(self, error: BaseException) -> str:
        """Notes why the run failed, with the traceback, where the disk takes it. Returns the line that says why."""
        line = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, UserError):
            line = f"{type(error).__name__}: {line[:300]}; the traceback is in {self.path / 'traceback.txt'}"
        with contextlib.suppress(UserError, OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            self._write("traceback.txt", "".join(traceback.format_exception(error)))
            kind, final = type(error).__name__, getattr(error, "final", False)
            self._write("failure.json", json.dumps({"error": line, "kind": kind, "final": final}))
            self._write("tries.json", json.dumps({**self._tries(), "error": line}))
        return line

    def _tries(self) -> dict[str, Any]:
        file = self.path / "tries.json"
        return json.loads(file.read_text()) if file.exists() else {"step": -1, "tries": 0}

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def _provenance(self) -> dict[str, Any]:
        return json.loads((self.path / "provenance.json").read_text())

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text)
