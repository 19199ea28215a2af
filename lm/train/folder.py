"""A run's folder: what is in it and what state it says the run is in."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lm.config import dumps, loads
from lm.errors import UserError
from lm.train.run import Run

Status = Literal["new", "interrupted", "failed", "done"]


class RunError(UserError):
    """A run's folder that can't be used."""


@dataclass(frozen=True)
class RunFolder:
    """config.json, provenance.json, tokenizer.json, rows.jsonl, checkpoints/ and, at the end, result.json or
    failure.json."""

    path: Path

    @property
    def rows(self) -> Path:
        return self.path / "rows.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    def status(self) -> Status:
        if (self.path / "result.json").exists():
            return "done"
        if (self.path / "failure.json").exists():
            return "failed"
        return "interrupted" if (self.path / "config.json").exists() else "new"

    def create(self, run: Run, tokenizer: str, provenance: dict[str, Any]) -> None:
        """Makes the folder, or checks that an existing one is this run's. An earlier failure is forgotten.

        tokenizer: its text form, so that the run can be used without its corpus.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / "config.json").exists():
            if self.config() != run:
                raise RunError(f"{self.path} holds another run; choose another folder or continue with its config.json")
        else:
            self.write("config.json", dumps(run, indent=2))
        self.write("tokenizer.json", tokenizer)
        self.write("provenance.json", json.dumps(provenance, indent=2))
        (self.path / "failure.json").unlink(missing_ok=True)

    def config(self) -> Run:
        """The run this folder is of."""
        file = self.path / "config.json"
        if not file.exists():
            raise RunError(f"{self.path} is no run's folder: it has no config.json")
        return loads(file.read_text())

    def result(self) -> dict[str, Any]:
        """The numbers of a finished run."""
        return json.loads((self.path / "result.json").read_text())

    def failure(self) -> str:
        """Why a failed run failed, in one line."""
        return json.loads((self.path / "failure.json").read_text())["error"]

    def finish(self, result: dict[str, Any]) -> None:
        self.write("result.json", json.dumps(result, indent=2, allow_nan=False))

    def fail(self, error: str) -> None:
        self.write("failure.json", json.dumps({"error": error}))

    def write(self, name: str, text: str) -> None:
        """Writes a file whole or not at all."""
        temporary = self.path / f".{name}.{os.getpid()}"
        try:
            temporary.write_text(text)
            temporary.replace(self.path / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RunError(
                f"can't write {self.path / name}: {error.strerror}; what was written before is whole"
            ) from None
