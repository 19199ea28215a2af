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
PATIENCE = 8  # times that every worker may have to be replaced without one run more being done
LONGEST = 60  # polls from one start of a worker to the next


class NoProgress(UserError):
    """Workers end again and again, and nothing gets done."""


def supervise(
    launcher: Launcher, work: Work, entries: Sequence[Entry], watch: Callable[[SweepState], None]
) -> SweepState:
    """Starts workers and returns when every run is done or failed for good. Workers that end before are replaced.

    Nothing depends on this process: killed and started again, it finds the workers that are there.
    """
    mine = {one.worker: one for one in running(work.manifest.parent) if type(one.launcher) is type(launcher)}
    starts: dict[int, int] = {}  # of each worker, since a run was last done
    again: dict[int, float] = {}  # when it may be started once more: one that can't begin isn't, every second
    done = -1
    try:
        while True:
            now = state(entries)
            watch(now)
            if not any(_open(entry) for entry in entries):
                return now
            mine = {one.worker: one for one in alive(list(mine.values()))}
            if now.counts.get("done", 0) > done:  # a run that failed is no progress
                done = now.counts.get("done", 0)
                starts.clear()
                again.clear()
            if not mine and min((starts.get(number, 0) for number in range(work.workers)), default=0) > PATIENCE:
                raise NoProgress(
                    f"workers ended {PATIENCE} times in a row without one run more being done; "
                    f"their logs, beside {work.manifest}, say why"
                )
            missing = [number for number in range(work.workers) if number not in mine]
            due = tuple(number for number in missing if time.monotonic() >= again.get(number, 0.0))
            if due:
                mine |= {one.worker: one for one in submit(launcher, replace(work, only=due))}
            for number in due:
                starts[number] = starts.get(number, 0) + 1
                again[number] = time.monotonic() + POLL * min(LONGEST, 2 ** starts[number])
            time.sleep(POLL)
    except (KeyboardInterrupt, NoProgress):
        launcher.cancel([one.job for one in mine.values()])
        raise


def _open(entry: Entry) -> bool:
    return entry.status() != "done" and not entry.folder.failed_for_good()
