"""Doing the runs of a manifest in this process, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lm.sweep.manifest import Entry
from lm.train.lock import RunLocked
from lm.train.loop import Machine, Stopped, train


@dataclass(frozen=True)
class Outcome:
    """How many runs were done now and before, and the lines of those that failed or are held by another process."""

    done: int
    before: int
    failed: tuple[str, ...]
    busy: tuple[str, ...]


def execute(entries: tuple[Entry, ...], machine: Machine, say: Callable[[str], None] = print) -> Outcome:
    """Trains every run that isn't done. A failure is said and the rest goes on; a request to stop ends all."""
    done = before = 0
    failed: list[str] = []
    busy: list[str] = []
    for number, entry in enumerate(entries, 1):
        name = f"[{number}/{len(entries)}] {entry.planned.label} ({entry.id})"
        if entry.status() == "done":
            before += 1
            continue
        try:
            result = train(entry.planned.run, entry.folder.path, machine)
        except Stopped:
            raise
        except RunLocked as error:
            busy.append(f"{entry.planned.label}: {error}")
            say(f"{name}: another process has it")
        except Exception as error:  # a fault of one run, whatever it is, must not end the others
            line = entry.folder.fail(error)
            failed.append(f"{entry.planned.label}: {line}")
            say(f"{name} failed: {line}")
        else:
            done += 1
            say(f"{name}: held-out loss {result['heldout_loss']:.4f} nats, {result['seconds']:.0f} s")
    return Outcome(done, before, tuple(failed), tuple(busy))
