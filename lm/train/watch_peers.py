"""A watch over the processes that train together: each ends soon after another is lost, and says which that was.

Left to itself JAX aborts after its heartbeat's time-out, without a name, and until then a collective waits for ever.
So each process has one plain connection to the first, which tells the others what becomes of them: a process that is
killed closes it, and one whose machine is gone falls silent.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence

LOST = 75  # exit code of those whose peer was lost: EX_TEMPFAIL of sysexits.h, nothing is wrong with the run itself
BEATS = 6  # beats in the time after which a silent process counts as lost
GRACE = 10.0  # seconds for which one that has left may seem to be missing
ADVICE = "this one ends, too; the same command goes on from the newest checkpoint"


def end(line: str) -> None:
    """Ends this process at once, whatever its other threads wait for."""
    print(f"lm: {line}; {ADVICE}", file=sys.stderr, flush=True)
    os._exit(LOST)


class Wire:
    """A connection that carries lines of text."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(1.0)
        self.connection = connection
        self.heard = time.monotonic()
        self._rest = b""

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # one that can't be spoken to is noticed by what it doesn't say
            self.connection.sendall(line.encode() + b"\n")

    def lines(self) -> list[str] | None:
        """What was said since; None if the other process has ended."""
        try:
            data = self.connection.recv(1 << 16)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not data:
            return None
        self.heard = time.monotonic()
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.close()


class Watch:
    """The watch of one process. `names`: what each is called; `silence`: seconds after which a silent one is lost.

    `ended` is called, in the watch's own thread, with the line that says who was lost; it isn't to return.
    """

    def __init__(self, names: Sequence[str], index: int, silence: float, ended: Callable[[str], None] = end) -> None:
        self.names, self.index, self.silence, self.ended = names, index, silence, ended
        self.wires: dict[int, Wire] = {}
        self.left: dict[int, float] = {}  # when a process said that it was done
        self.waiting: float | None = None  # since when this process waits for all the others to agree
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._new: dict[Wire, float] = {}  # those that haven't said yet who they are, and until when they may
        self._token = ""
        self._closing = threading.Event()

    def listen(self, token: str) -> int:
        """Waits for the others, who know `token`; the port."""
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._listener = socket.create_server(("", 0), family=family, dualstack_ipv6=dual, backlog=len(self.names))
        self._token = token
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._start()
        return self._listener.getsockname()[1]

    def connect(self, host: str, port: int, token: str) -> None:
        """Connects to the first process. Raises OSError if that can't be reached."""
        wire = Wire(socket.create_connection((host, port), timeout=GRACE))
        wire.say(f"{token} {self.index}")
        self._add(0, wire)
        self._start()

    def leave(self) -> None:
        """This process is done: that it ends is no loss."""
        self._closing.set()  # first: who hears the word closes the connection, which isn't to be taken for its end
        for wire in list(self.wires.values()):
            wire.say("bye")

    def fail(self, reason: str) -> None:
        """Tells the others that this process can't go on."""
        self._closing.set()
        self._tell(f"{self.names[self.index]} couldn't go on: {reason}")
        time.sleep(0.5)  # else what is still on its way may be lost with the connection

    def _start(self) -> None:
        threading.Thread(target=self._work, name="lm-peers", daemon=True).start()

    def _work(self) -> None:
        beat, next_beat = self.silence / BEATS, 0.0
        while not self._closing.is_set():
            for key, _ in self._selector.select(min(beat, 0.5)):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.data, Wire):
                    self._greet(key.data)
                else:
                    self._hear(key.data)
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + beat
                for wire in list(self.wires.values()):
                    wire.say("")
            self._judge(time.monotonic())

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            wire = Wire(connection)
            self._new[wire] = time.monotonic() + self.silence
            self._selector.register(connection, selectors.EVENT_READ, wire)

    def _greet(self, wire: Wire) -> None:
        """Takes one that has said who it is for a process of the run, or closes a stranger's connection."""
        lines = wire.lines()
        if lines == []:  # not a whole line yet
            return
        token, _, index = (lines or [""])[0].partition(" ")
        self._forget(wire)
        if token == self._token and index.isdigit() and int(index) < len(self.names):
            self._add(int(index), wire)
            self._heard(int(index), lines[1:] if lines else [])
        else:
            wire.close()

    def _forget(self, wire: Wire) -> None:
        del self._new[wire]
        self._selector.unregister(wire.connection)

    def _add(self, index: int, wire: Wire) -> None:
        self.wires[index] = wire
        self._selector.register(wire.connection, selectors.EVENT_READ, index)

    def _hear(self, index: int) -> None:
        self._heard(index, self.wires[index].lines())

    def _heard(self, index: int, lines: list[str] | None) -> None:
        for line in lines or ():
            if line == "bye":
                self.left[index] = time.monotonic()
            elif line.startswith("end "):
                self._lost(line.removeprefix("end "))
        if lines is None or index in self.left:
            wire = self.wires.pop(index)
            self._selector.unregister(wire.connection)
            wire.close()
        if lines is None and index not in self.left:
            self._lost(f"{self.names[index]} is lost: it has ended without a word")

    def _judge(self, now: float) -> None:
        for wire in [wire for wire, until in self._new.items() if now > until]:
            self._forget(wire)
            wire.close()
        for index, wire in self.wires.items():
            if now - wire.heard > self.silence:
                return self._lost(f"{self.names[index]} is lost: nothing was heard of it for {self.silence:.0f} s")
        waiting = self.waiting
        for index, since in self.left.items():
            if waiting is not None and now - max(waiting, since) > GRACE:
                return self._lost(f"{self.names[index]} has left; its log says why")
        return None

    def _lost(self, line: str) -> None:
        if self._closing.is_set():
            return
        if self._listener is not None:
            self._tell(line)
            time.sleep(0.5)  # the others hear of it before the end of this one, which would be their next news
        self._closing.set()
        self.ended(line)

    def _tell(self, line: str) -> None:
        for wire in list(self.wires.values()):
            wire.say(f"end {' '.join(line.split())}")
