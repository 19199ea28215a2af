"""Waiting for the workers of a sweep, and starting new ones for those that die."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from lm.errors import UserError
from lm.sweep.launchers.base import Launcher, alive, running, submit
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
    mine = {one.worker: one for one in running(work.manifest.parent) if type(one.launcher) is type(launcher)}
    done, fruitless = -1, 0
    try:
        while True:
            now = state(entries)
            watch(now)
            if not any(_open(entry) for entry in entries):
                return now
            mine = {one.worker: one for one in alive(list(mine.values()))}
            missing = tuple(number for number in range(work.workers) if number not in mine)
            if missing:
                finished = now.counts.get("done", 0) + now.counts.get("failed", 0)
                fruitless = 0 if finished > done else fruitless + 1
                done = max(done, finished)
                if fruitless > PATIENCE and not mine:
                    raise NoProgress(
                        f"workers ended {fruitless} times in a row without one run more being done; "
                        f"their logs, beside {work.manifest}, say why"
                    )
                mine |= {one.worker: one for one in submit(launcher, replace(work, only=missing))}
            time.sleep(POLL * min(10, 1 + fruitless))  # workers that can't begin aren't started every second
    except (KeyboardInterrupt, NoProgress):
        launcher.cancel([one.job for one in mine.values()])
        raise


def _open(entry: Entry) -> bool:
    return entry.status() != "done" and not entry.folder.failed_for_good()
