"""How a run is doing, for who watches it: a bar on a terminal, a few lines of log elsewhere."""

from __future__ import annotations

import logging
import time
from types import TracebackType

log = logging.getLogger("lm.train")


class Progress:
    """Follows a run of `steps` steps from step `start` on.

    On a terminal (standard error) a bar with loss, tokens/s and the time left. Elsewhere a line through `logging`
    (INFO) each time the step has doubled, and at the end. With `quiet`, nothing.
    """

    def __init__(self, steps: int, start: int = 0, quiet: bool = False, label: str = "") -> None:
        self.steps = steps
        self.label = label
        self.quiet = quiet
        self._began = time.perf_counter()
        self._start = start
        self._next_line = 1
        self._drawn = 0.0
        self._bar = None if quiet else _bar(steps, start, label)

    def update(self, step: int, loss: float | None = None, tokens_per_second: float | None = None) -> None:
        """Step `step` is done. Cheap: draws at most ten times a second."""
        if self.quiet:
            return
        if self._bar is not None:
            now = time.perf_counter()
            if now - self._drawn >= 0.1 or step >= self.steps:
                self._drawn = now
                text = " ".join(_parts(loss, tokens_per_second))
                self._bar.update(self._bar.task_ids[0], completed=step, numbers=text)
        elif step >= self._next_line or step == self.steps:
            while self._next_line <= step:
                self._next_line *= 2
            parts = [f"step {step}/{self.steps}", *_parts(loss, tokens_per_second), *self._left(step)]
            log.info("%s%s", f"{self.label}: " if self.label else "", ", ".join(parts))

    def close(self) -> None:
        """Leaves the bar as it is and gives the terminal back."""
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _left(self, step: int) -> list[str]:
        done = step - self._start
        if done < 2 or step >= self.steps:
            return []
        seconds = (time.perf_counter() - self._began) / done * (self.steps - step)
        return [f"about {duration(seconds)} left"]


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 8s, 3m20s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def _parts(loss: float | None, tokens_per_second: float | None) -> list[str]:
    parts = [f"loss {loss:.4f}"] if loss is not None else []
    return parts + ([f"{tokens_per_second:,.0f} tokens/s"] if tokens_per_second is not None else [])


def _bar(steps: int, start: int, label: str):
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[numbers]}"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        refresh_per_second=4,
    )
    bar.add_task(label or "training", total=steps, completed=start, numbers="")
    bar.start()
    return bar
