"""A worker: one of any number of processes that do the runs of a manifest."""

from __future__ import annotations

import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from lm.commands.options import OnMachine

if TYPE_CHECKING:
    from lm.train.lane import Machine


@dataclass(frozen=True, kw_only=True)
class Doing(OnMachine):
    """How runs are done."""

    together: Literal["auto", "always", "never"] = "auto"
    """Train runs that differ only in numbers as one program: always, never, or where that was measured to be faster."""
    tries: int = 3
    """How often a run may die at the same step before it counts as failed."""

    def machine(self) -> Machine:
        return dataclasses.replace(super().machine(), tries=self.tries)


@dataclass(frozen=True, kw_only=True)
class Work(Doing):
    """Do runs of a manifest until none is left. Any number may work on one manifest; any may be killed.

    Launchers start it: lm sweep submit FILE --on Local
    """

    manifest: Annotated[Positional[str], arg(metavar="MANIFEST")]
    """results/NAME/manifest.jsonl, as lm sweep plan writes it."""
    share: int = 1
    """How many workers there are: one takes only its part of a group."""
    first: int = 0
    """The number of this worker, from 0: where in the manifest it begins."""
    cores: str = ""
    """Cores this process keeps to, e.g. 0,1. Default: all."""

    def __call__(self) -> int:
        if self.cores:
            os.sched_setaffinity(0, {int(core) for core in self.cores.split(",")})
        from lm.train import hosts

        hosts.join(self.distributed)
        from lm.sweep import manifest, study
        from lm.sweep.execute import Worker
        from lm.sweep.trials import train_trials

        path, machine = Path(self.manifest), self.machine()
        say = functools.partial(print, flush=True) if hosts.first() else lambda _: None
        kept = study.stored(path.parent)
        if kept is not None:
            outcome = train_trials(kept[0], path.parent, machine, say, wait=True)
        else:
            outcome = Worker(
                manifest.read(path),
                machine,
                path.parent / "speeds.jsonl",
                say=say,
                together=self.together,
                share=self.share,
                first=self.first,
                wait=True,
            ).work()
        print(f"{outcome.done} runs done here, {outcome.before} before; {len(outcome.failed)} failed")
        return 0
