"""A watch over steps: what Python does is written down when one takes far too long, and a slow host is named."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, median_low
from typing import NamedTuple

from lm.train import hosts

log = logging.getLogger("lm.train")

TIMES = 10  # medians after which a step counts as hung
LEAST = 10.0  # seconds, and no sooner than this
UNTIMED = 900.0  # seconds for what has no median: compiling, an evaluation, a checkpoint
KEPT = 100  # dispatches that the median is taken of
STDERR = 2  # the process's own, whatever Python's is by now
SLOWER, SLOWER_BY = 2.0, 0.1  # a process is slow from so many medians on, and by so many seconds a dispatch


class Doing(NamedTuple):
    """What a process does, since when, and of how many steps it is; 0: it has no median."""

    what: str
    since: float
    count: int


class StepWatch:
    """A scope with a thread that writes every thread's stack to stderr and to `folder`/stacks-INDEX.txt, once for each
    dispatch that takes `TIMES` the median. The run goes on: it may only be slow."""

    def __init__(self, folder: Path, index: int, now: Callable[[], float] = time.monotonic) -> None:
        self.file, self.now = folder / f"stacks-{index}.txt", now
        self._each: deque[float] = deque(maxlen=KEPT)  # seconds a step
        self._doing = Doing("compiling the first step", now(), 0)  # read by another thread: replaced whole
        self._said: Doing | None = None  # what was last written down
        self._over = threading.Event()
        self._first = True

    def __enter__(self) -> StepWatch:
        threading.Thread(target=self._work, name="lm-steps", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def begin(self, step: int, count: int) -> None:
        """A dispatch of `count` steps after `step` begins."""
        self._set(f"step {step + 1}", 0 if self._first else count)

    def done(self) -> None:
        """It has ended; what comes before the next has no median."""
        if self._doing.count:
            self._each.append(self.seconds() / self._doing.count)
        self._first = False
        self._set(f"what follows on {self._doing.what}", 0)

    def seconds(self) -> float:
        """How long what is done now takes by now."""
        return self.now() - self._doing.since

    def limit(self) -> float:
        """Seconds that what is done now may take."""
        return self._limit(self._doing)

    def _limit(self, doing: Doing) -> float:
        if not (doing.count and self._each):
            return UNTIMED
        return max(TIMES * median(list(self._each)) * doing.count, LEAST)

    def check(self) -> bool:
        """Writes the stacks down if what is done now takes too long, and it is the first to say so."""
        doing = self._doing
        took, limit = self.now() - doing.since, self._limit(doing)
        if self._said is doing or took <= limit:
            return False
        self._said = doing
        usual = f", usually {limit / TIMES:.1f} s at most" if doing.count else ""
        line = f"process {hosts.index()}: {doing.what} takes {took:.0f} s by now{usual}"
        log.warning("%s; what it does is in %s", line, self.file)
        with contextlib.suppress(OSError):
            faulthandler.dump_traceback(STDERR)
        with contextlib.suppress(OSError), self.file.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            file.flush()
            faulthandler.dump_traceback(file)
        return True

    def _set(self, what: str, count: int) -> None:
        self._doing = Doing(what, self.now(), count)

    def _work(self) -> None:
        while not self._over.wait(1.0):
            self.check()


class OwnTimes:
    """Seconds that this process takes for a dispatch without waiting for others, and how they compare.

    Every process has the same times in the end, since all wait for the slowest. What each needs by itself (loading its
    rows, handing them to its devices, Python) tells which host holds the others up. Of a slow device it tells nothing:
    all wait for that equally, inside the program.
    """

    def __init__(self) -> None:
        self._own: list[float] = []
        self._named: set[int] = set()

    def add(self, seconds: float) -> None:
        self._own.append(seconds)

    def clear(self) -> None:
        self._own.clear()

    def compare(self) -> None:
        """Every process calls this at the same step; the first one names those that became slow."""
        if not hosts.several():
            return
        own = hosts.gather(sum(self._own) / len(self._own) if self._own else 0.0)
        self._own.clear()
        found = set(slow(own))
        if hosts.first():
            for index in sorted(found - self._named):
                log.warning(
                    "%s holds the others up: it needs %.2f s for a dispatch by itself, the median is %.2f s",
                    *(hosts.name(index), own[index], median_low(own)),
                )
        self._named = found


def slow(seconds: Sequence[float]) -> list[int]:
    """The processes that take much longer than the median, which half of two is the faster one."""
    usual = median_low(seconds)
    return [i for i, own in enumerate(seconds) if own > SLOWER * usual and own > usual + SLOWER_BY]
