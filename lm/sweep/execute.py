"""Doing the runs of a manifest in this process, beside any number of other processes that do the same.

Who does which run is settled by the runs' own locks and leases, so processes may come, go and be killed at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lm.errors import UserError
from lm.files import first_line
from lm.sweep.manifest import Entry
from lm.sweep.vectorise import vectorised_is_faster
from lm.train import hosts
from lm.train.folder import RunFolder
from lm.train.group import Member, train_together
from lm.train.lane import Machine, Stopped
from lm.train.lock import LeaseLost, RunLocked
from lm.train.loop import train
from lm.train.programs import make_room

Together = Literal["auto", "always", "never"]
NOTHING, WAIT = -1, -2  # instead of the number of a run
POLL = 2.0  # seconds between two looks at runs that others hold
ILL = 3  # different runs that fail one after another where none was done: it is the machine, if there are others


class BadMachine(UserError):
    """Whatever is tried here fails."""


@dataclass(frozen=True)
class Outcome:
    """How many runs were done now and before, and the lines of those that failed or are held by another process."""

    done: int
    before: int
    failed: tuple[str, ...]
    busy: tuple[str, ...]


@dataclass
class Worker:
    """One process's way through a manifest.

    together: whether runs of a group are trained as one program: "auto" measures where it may pay off. share: how
    many processes do this at once, so that one doesn't take a whole group. first: where in the list this one begins.
    wait: stay until runs that others hold are done too, and do those whose holders die.
    """

    entries: Sequence[Entry]
    machine: Machine
    speeds: Path  # measurements are kept there
    say: Callable[[str], None] = print
    together: Together = "auto"
    share: int = 1
    first: int = 0
    wait: bool = False
    _done: int = 0
    _failed: dict[str, str] = field(default_factory=dict)
    _ill: set[str] = field(default_factory=set)  # runs that failed here, and might not elsewhere
    _tries: dict[str, int] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def work(self) -> Outcome:
        """Until every run is done, failed for good, or in others' hands. A request to stop raises Stopped.

        Raises BadMachine where every run fails and other workers may do better, before it uses up all runs' tries."""
        before = sum(entry.status() == "done" for entry in self.entries)
        if hosts.several():
            return self._work_with_others(before)
        while True:
            busy: dict[str, str] = {}
            tried = 0
            for part in self._parts():
                tried += self._do(part, busy)
            if not self._left() or (not tried and not self.wait):
                break
            if not tried:
                time.sleep(POLL)
        return self._outcome(before, busy)

    def _work_with_others(self, before: int) -> Outcome:
        """As one of several processes that train each run together: the first says which is next."""
        order = list(range(len(self.entries)))
        order = order[self.first % len(order) :] + order[: self.first % len(order)]
        waiting: set[int] = set()  # those that other workers have
        while True:
            left = [i for i in order if self._open(self.entries[i])]
            free = [i for i in left if i not in waiting]
            choice = hosts.from_first(free[0] if free else WAIT if left and self.wait else NOTHING)
            if choice == NOTHING:
                return self._outcome(before, {})
            if choice == WAIT:
                time.sleep(POLL)
                waiting.clear()
            elif not self._do([self.entries[choice]], {}):
                waiting.add(choice)

    def _outcome(self, before: int, busy: dict[str, str]) -> Outcome:
        for entry in self.entries:
            if entry.folder.failed_for_good() and entry.id not in self._failed:
                self._failed[entry.id] = f"{entry.planned.label}: {entry.folder.failure()}"
            elif entry.status() == "done":
                self._failed.pop(entry.id, None)
        return Outcome(self._done, before, tuple(self._failed.values()), tuple(busy.values()))

    def _left(self) -> list[Entry]:
        """What is neither done nor failed for good."""
        return [entry for entry in self.entries if self._open(entry)]

    def _parts(self) -> Iterator[list[Entry]]:
        """Runs to be done at once: as much of a group as is this worker's share, or one; those of a group in a row,
        in the order of the manifest, so that a program is compiled once and then forgotten."""
        groups: dict[str, list[Entry]] = {}
        for entry in self._left():
            groups.setdefault(entry.group, []).append(entry)
        order = list(groups.values())
        turn = self.first % len(order) if order else 0
        for group in order[turn:] + order[:turn]:
            size = -(-len(group) // self.share)
            if size > 1 and self._vectorises(group[:size]):
                yield from (group[i : i + size] for i in range(0, len(group), size))
            else:
                turn = self.first % len(group)
                yield from ([entry] for entry in group[turn:] + group[:turn])

    def _vectorises(self, group: Sequence[Entry]) -> bool:
        if self.together != "auto":
            return self.together == "always"
        try:
            return vectorised_is_faster([e.planned.run for e in group], self.machine.layout, self.speeds, self.say)
        except Exception as error:  # a run that can't be trained says so itself when its turn comes
            self.say(f"runs of {group[0].planned.arm} couldn't be measured as one program: {first_line(error)}")
            return False

    def _do(self, part: Sequence[Entry], busy: dict[str, str]) -> int:
        """Trains runs at once; how many were really tried. What fails is said, and the rest goes on."""
        make_room()
        if not hosts.several():  # others may have done some since the list was made
            part = [entry for entry in part if self._open(entry)]
        if not part:
            return 0
        machine = self.machine.fitting(part[0].planned.run.train.steps)
        if len(part) > 1:
            try:
                found = train_together([Member(e.planned.run, e.folder.path) for e in part], machine)
            except Stopped:
                raise
            except Exception as error:
                found = [error] * len(part)
            return sum(self._note(entry, result, busy) for entry, result in zip(part, found, strict=True))
        (entry,) = part
        try:
            result = train(entry.planned.run, entry.folder.path, machine)
        except Stopped:
            raise
        except Exception as error:  # a fault of one run, whatever it is, must not end the others
            hosts.end_unless_agreed(error)
            result = error
        return self._note(entry, result, busy)

    def _open(self, entry: Entry) -> bool:
        """Whether there is something to do for a run, and it wasn't tried here too often."""
        tried = self._tries.get(entry.id, 0) >= self.machine.tries
        return entry.status() != "done" and not tried and not entry.folder.failed_for_good()

    def _note(self, entry: Entry, result: object, busy: dict[str, str]) -> bool:
        number = next(i for i, e in enumerate(self.entries, 1) if e.id == entry.id)
        name = f"[{number}/{len(self.entries)}] {entry.planned.label} ({entry.id})"
        if isinstance(result, RunLocked):
            if not self.wait and entry.id not in self._told:
                self.say(f"{name}: another process has it")
            self._told.add(entry.id)
            busy[entry.id] = f"{entry.planned.label}: {result}"
            return False
        self._tries[entry.id] = self._tries.get(entry.id, 0) + 1
        if isinstance(result, dict):
            self._done += 1
            self._failed.pop(entry.id, None)
            self.say(f"{name}: held-out loss {result['heldout_loss']:.4f} nats, {result['seconds']:.0f} s")
            return True
        assert isinstance(result, Exception)
        line = reason_of(entry.folder, result)
        self._failed[entry.id] = f"{entry.planned.label}: {line}"
        self.say(f"{name} failed: {line}")
        if not entry.folder.failed_for_good():  # else it would have failed anywhere
            self._ill.add(entry.id)
        if self.share > 1 and not self._done and len(self._ill) >= ILL:
            for ill in self.entries:
                if ill.id in self._ill:
                    ill.folder.forgive()
            raise BadMachine(f"the first {ILL} runs all failed here, the last with: {line}; leaving the rest to others")
        return True


def reason_of(folder: RunFolder, error: Exception) -> str:
    """The line that says why a run failed: what its folder says, or the error where nothing could be written."""
    if folder.status() == "failed":
        return folder.failure()
    if isinstance(error, LeaseLost | hosts.PeerFailed) or folder.status() == "running":
        return str(error)  # the folder is another process's
    return folder.fail(error)
