"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from lm.sweep.file import ExperimentFile
    from lm.sweep.manifest import Entry
    from lm.train.loop import Machine

File = Annotated[Positional[str], arg(metavar="FILE")]
Overrides = Annotated[Positional[tuple[str, ...]], arg(metavar="PATH=VALUE")]
RunPath = Annotated[Positional[str], arg(metavar="RUN")]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Options of every command."""

    debug: bool = False
    """Show the traceback of an error."""

    def __call__(self) -> int:
        """Does the command; the exit code."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OnMachine(Shared):
    """Options of commands that train."""

    mesh: str = ""
    """Devices to use, e.g. data=8 or fsdp=4,tensor=2. Default: one, or all of processes that train together."""
    rules: str | None = None
    """What the mesh's axes split: ddp, fsdp, fsdp_tp, ep, sp, sp_ulysses, pp. Default: all that they can."""
    log: tuple[str, ...] = ()
    """Where metrics go besides the run's own rows: tensorboard, wandb."""
    quiet: bool = False
    """No progress bar."""
    profile: str | None = None
    """Write an XLA trace of these steps into the run's folder: steps=10:15. lm profile RUN reads it."""
    distributed: bool = False
    """This process is one of several that train each run together, found as jax.distributed finds them."""

    def machine(self) -> Machine:
        from lm.sharding import layout
        from lm.train import hosts
        from lm.train.loop import Machine
        from lm.train.profile import Window

        hosts.join(self.distributed)
        window = None if self.profile is None else Window.read(self.profile)
        mesh = self.mesh or (f"data={hosts.devices()}" if hosts.several() else "")
        return Machine(
            layout=layout(mesh, self.rules), log=self.log, quiet=self.quiet or not hosts.first(), profile=window
        )


@dataclass(frozen=True, kw_only=True)
class OfExperiment(Shared):
    """Options of commands on an experiment file."""

    file: File
    """A Python file that defines `experiment`."""
    overrides: Overrides = ()
    """Changes of the experiment, e.g. seeds=8 base.train.steps=2000 base.model.block.mixer.kv_heads=2."""
    preset: str | None = None
    """One of the file's `presets`, e.g. smoke."""
    results: str = "results"
    """The folder that runs and reports are kept in."""

    def experiment(self) -> tuple[ExperimentFile, tuple[Entry, ...], Path]:
        """The file, its manifest, and the folder of its report. The manifest is written there."""
        from lm.sweep import file, manifest

        found = file.load(self.file, self.preset, self.overrides)
        entries = manifest.manifest(found.experiment, Path(self.results), found.name)
        return found, entries, Path(self.results) / found.name


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Plain text, numbers to the right."""
    import pandas as pd

    from lm.analysis.text import plain_columns, plain_table

    frame = pd.DataFrame(rows, columns=list(columns))
    return plain_table(frame, plain_columns(frame))
