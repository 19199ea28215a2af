"""The watch over processes: each kind of loss is told to all, in one line, and a good end is none."""

import contextlib
import socket
import threading
import time

import pytest

from lm.train import watch_peers
from lm.train.watch_peers import Watch, Wire

SILENCE = 1.2  # seconds


class Party:
    """Watches of three processes, as threads of this one; what each says in the end."""

    def __init__(self) -> None:
        names = [f"process {i} of 3" for i in range(3)]
        self.ends: dict[int, str] = {}
        self.ended = {i: threading.Event() for i in range(3)}
        self.watches = [Watch(names, i, SILENCE, lambda line, i=i: self._end(i, line)) for i in range(3)]
        self.port = self.watches[0].listen("secret")
        for watch in self.watches[1:]:
            watch.connect("127.0.0.1", self.port, "secret")
        deadline = time.monotonic() + 10
        while len(self.watches[0].wires) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _end(self, index: int, line: str) -> None:
        self.ends[index] = line
        self.ended[index].set()

    def heard(self, *indexes: int) -> list[str]:
        """What these said."""
        assert all(self.ended[i].wait(20) for i in indexes), self.ends
        return [self.ends[i] for i in indexes]

    def vanish(self, index: int) -> None:
        """As a killed process does: its connections are closed."""
        watch = self.watches[index]
        watch._closing.set()
        for wire in list(watch.wires.values()):
            wire.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def party(monkeypatch):
    monkeypatch.setattr(watch_peers, "GRACE", 0.5)
    found = Party()
    yield found
    for watch in found.watches:
        watch.leave()


def test_one_that_has_ended_is_named_by_all_others(party):
    party.vanish(2)
    assert party.heard(0, 1) == ["process 2 of 3 is lost: it has ended without a word"] * 2


def test_so_is_the_first(party):
    party.vanish(0)
    assert party.heard(1, 2) == ["process 0 of 3 is lost: it has ended without a word"] * 2


@pytest.mark.parametrize("silent", [0, 1])
def test_one_that_is_silent_is_named(party, monkeypatch, silent):
    """As a machine that has lost its network, which closes nothing."""
    monkeypatch.setattr(party.watches[silent], "_judge", lambda now: time.sleep(60))
    others = [i for i in range(3) if i != silent]
    assert party.heard(*others) == [f"process {silent} of 3 is lost: nothing was heard of it for 1 s"] * 2


def test_the_others_are_told_why_one_can_not_go_on(party):
    party.watches[1].fail("no such file:\nx.txt")
    assert party.heard(0, 2) == ["process 1 of 3 couldn't go on: no such file: x.txt"] * 2
    assert 1 not in party.ends  # it ends by its own error


def test_one_that_is_done_is_no_loss_until_the_others_wait_for_it(party):
    party.watches[1].leave()
    time.sleep(2 * SILENCE)
    assert not party.ends
    party.watches[2].waiting = party.watches[0].waiting = time.monotonic()
    assert party.heard(0, 2) == ["process 1 of 3 has left; its log says why"] * 2


@pytest.mark.parametrize("leaves", [0, 2])
def test_one_that_leaves_is_not_taken_for_lost_when_the_other_side_hangs_up(party, monkeypatch, leaves):
    say = Wire.say

    def slowly(self, line):
        say(self, line)
        if line == "bye":
            time.sleep(0.7)  # until whoever heard it has closed the connection

    monkeypatch.setattr(Wire, "say", slowly)
    party.watches[leaves].leave()
    time.sleep(0.7)
    assert party.ends == {}


def test_one_may_take_its_time_to_say_who_it_is():
    """On a loaded machine. Meanwhile the others are heard, and one that never says it is let go."""
    ends: list[str] = []
    watch = Watch(["process 0 of 2", "process 1 of 2"], 0, 3.0, ends.append)
    address = ("127.0.0.1", watch.listen("secret"))
    with socket.create_connection(address) as silent, socket.create_connection(address) as late:
        late.sendall(b"sec")
        time.sleep(0.3)
        assert not watch.wires
        late.sendall(b"ret 1\n")
        silent.settimeout(0.1)
        closed, deadline = None, time.monotonic() + 20
        while closed is None and time.monotonic() < deadline:
            late.sendall(b"\n")  # a beat
            with contextlib.suppress(TimeoutError):
                closed = silent.recv(10)
        assert closed == b"" and list(watch.wires) == [1] and not ends
        late.sendall(b"bye\n")
    watch.leave()


def test_strangers_are_not_listened_to(party):
    with socket.create_connection(("127.0.0.1", party.port)) as stranger:
        Wire(stranger).say("guess 1")
        assert stranger.recv(10) == b""
    assert not party.ends and len(party.watches[0].wires) == 2
