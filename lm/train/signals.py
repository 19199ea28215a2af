"""Stopping when asked: SIGTERM and SIGINT become a flag that the loop reads between dispatches."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

# Exit code of a run that was stopped and saved: 128 + SIGTERM, what a shell reports of a process that died of it, so
# both are treated alike. Not 0: engines take that for done, and wouldn't start the run again.
STOPPED = 143


class StopRequest:
    """A scope in which SIGTERM and the first SIGINT set `requested`; a second SIGINT interrupts what the loop does.

    Python handles a signal when the dispatch it waits for is done, and by then another is on its way: a run stops,
    saved, within two dispatches.

    Outside the main thread, where Python takes no signal handlers, it only holds the flag.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
