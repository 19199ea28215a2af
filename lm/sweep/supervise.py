"""Waiting for the workers of a sweep, and starting new ones for those that die."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lm.errors import UserError
from lm.sweep.launchers.base import Launcher, submit, submitted
from lm.sweep.launchers.work import Work
from lm.sweep.manifest import Entry
from lm.sweep.status import SweepState, state

POLL = 1.0
PATIENCE = 20  # times that workers may have to be replaced without one run more being done


class NoProgress(UserError):
    """Workers end again and again, and nothing gets done."""


def supervise(
    launcher: Launcher, work: Work, entries: Sequence[Entry], watch: Callable[[SweepState], None]
) -> SweepState:
    """Starts workers and returns when every run is done or failed for good. Workers that end before are replaced.

    Nothing depends on this process: killed and started again, it finds the workers that are there.
    """
    jobs = _running(launcher, [job for _, jobs in submitted(Path(work.manifest).parent, launcher) for job in jobs])
    done, fruitless = -1, 0
    try:
        while True:
            now = state(entries)
            watch(now)
            if not any(_open(entry) for entry in entries):
                return now
            running = _running(launcher, jobs)
            missing = work.workers - len(running)
            if missing > 0:
                finished = now.counts.get("done", 0) + now.counts.get("failed", 0)
                fruitless = 0 if finished > done else fruitless + 1
                done = finished
                if fruitless > PATIENCE:
                    raise NoProgress(
                        f"workers ended {fruitless} times in a row without one run more being done; "
                        f"their logs, beside {work.manifest}, say why"
                    )
                jobs = running + submit(launcher, replace(work, workers=missing))
            time.sleep(POLL)
    except (KeyboardInterrupt, NoProgress):
        launcher.cancel(jobs)
        raise


def _running(launcher: Launcher, jobs: Sequence[str]) -> list[str]:
    return [job for job, what in launcher.poll(jobs).items() if what != "ended"]


def _open(entry: Entry) -> bool:
    return entry.status() != "done" and not entry.folder.failed_for_good()
