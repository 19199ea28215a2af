"""Where metrics may go besides the run's own rows: TensorBoard, Weights & Biases, Trackio.

They are views for who watches; nothing is ever read back from them. A writer that fails doesn't fail the run: it
warns once and stops.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from lm.errors import UserError, unknown

log = logging.getLogger("lm.train")


class WriterError(UserError):
    """A writer that isn't known or not installed."""


class Writer(Protocol):
    """Takes rows: {"step": int, "split": "train" | "heldout", name: number, ...}."""

    def write(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def writer(name: str, folder: str | Path) -> Writer:
    """The writer called `name` ("tensorboard", "wandb", "trackio") for the run in `folder`.

    Raises WriterError if there is none of that name, or if its package isn't installed.
    """
    if name not in WRITERS:
        raise WriterError(unknown(name, WRITERS, "there is no writer"))
    try:
        return Guarded(name, WRITERS[name](Path(folder)))
    except ImportError as error:
        raise WriterError(f"{name} isn't installed ({error}); install it with: pip install 'lm[{name}]'") from None


class Guarded:
    """A writer whose failures end it, with a warning, and not the run."""

    def __init__(self, name: str, inner: Writer) -> None:
        self.name = name
        self.inner: Writer | None = inner

    def write(self, row: Mapping[str, Any]) -> None:
        self._try(lambda inner: inner.write(row))

    def close(self) -> None:
        self._try(lambda inner: inner.close())
        self.inner = None

    def _try(self, act: Callable[[Writer], None]) -> None:
        if self.inner is None:
            return
        try:
            act(self.inner)
        except Exception as error:  # whatever a service's client raises
            log.warning("%s stopped (%s: %s); the run goes on", self.name, type(error).__name__, error)
            self.inner = None


class TensorBoard:
    """Event files in `folder`/tensorboard. On resume, the steps that are done again replace the old ones."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._new: Callable[..., Any] = lambda **options: SummaryWriter(str(folder / "tensorboard"), **options)
        self._writer: Any = None

    def write(self, row: Mapping[str, Any]) -> None:
        step = int(row["step"])
        if self._writer is None:
            self._writer = self._new(purge_step=step)
        for name, value in _scalars(row).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WandB:
    """A Weights & Biases run named after the folder, kept in it; resumed under the same id.

    Written offline (`wandb sync` uploads it later) unless WANDB_MODE or WANDB_API_KEY is set in the environment.
    WANDB_PROJECT and the other variables of its client are heeded.
    """

    def __init__(self, folder: Path) -> None:
        wandb: Any = importlib.import_module("wandb")
        chosen = "WANDB_MODE" in os.environ or "WANDB_API_KEY" in os.environ
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lm"),
            id=folder.absolute().name,
            name=folder.absolute().name,
            dir=str(folder),
            resume="allow",
            reinit="create_new",  # runs of one group are trained side by side, each with its own writer
            mode=None if chosen else "offline",
        )
        self._run.define_metric("*", step_metric="step")

    def write(self, row: Mapping[str, Any]) -> None:
        self._run.log({**_scalars(row), "step": int(row["step"])})

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A Trackio run named after the folder, in the project "lm"; resumed under its name.

    Written to Trackio's own folder, where `trackio show --project lm` finds it, unless TRACKIO_DIR names another, or
    TRACKIO_SPACE_ID or TRACKIO_SERVER_URL a place to send it to. Steps that are done again on resume are there twice.
    """

    def __init__(self, folder: Path) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # it says where it writes; a command's output is the command's
            trackio: Any = importlib.import_module("trackio")
            self._run = contextvars.Context().run(  # in a context of its own it doesn't end a run that is still open
                trackio.init,
                project="lm",
                name=folder.absolute().name,
                resume="allow",
                embed=False,
                auto_log_cpu=False,  # only what the rows have
                auto_log_gpu=False,
            )

    def write(self, row: Mapping[str, Any]) -> None:
        self._run.log(_scalars(row), step=int(row["step"]))

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


WRITERS: dict[str, Callable[[Path], Writer]] = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}


def _scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row, named split/name."""
    split = row.get("split")
    return {
        f"{split}/{name}" if split else name: float(value)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
