"""The watch over steps: a hung one is written down once, by its own clock; a slow process is told from the others."""

import logging
import time

import pytest

from lm.train import watch
from lm.train.watch import LEAST, UNTIMED, OwnTimes, StepWatch, slow


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


def steps(watching: StepWatch, clock: Time, seconds: list[float], count: int = 1) -> None:
    for each in seconds:
        watching.begin(7, count)
        clock.now += each
        watching.done()


def test_a_step_of_ten_medians_is_written_down_once(tmp_path, clock, caplog):
    watching = StepWatch(tmp_path, 3, clock)
    steps(watching, clock, [600.0, 2.0, 2.0, 4.0])  # the first was compiled
    watching.begin(10, 1)
    clock.now += 19.9
    assert not watching.check()
    clock.now += 0.2
    assert watching.check() and not watching.check()
    text = (tmp_path / "stacks-3.txt").read_text()
    assert "step 11 takes 20 s" in text and "test_a_step_of_ten_medians_is_written_down_once" in text
    assert "step 11 takes 20 s" in caplog.text
    watching.done()
    watching.begin(11, 1)  # the next one may hang, too
    clock.now += 35.0  # the median is 3 s by now
    assert watching.check()
    assert (tmp_path / "stacks-3.txt").read_text().count("takes") == 2


def test_what_has_no_median_gets_longer(tmp_path, clock):
    watching = StepWatch(tmp_path, 0, clock)
    assert watching.limit() == UNTIMED
    watching.begin(0, 1)
    assert watching.limit() == UNTIMED  # it is being compiled
    watching.done()
    steps(watching, clock, [2.0, 2.0], count=2)
    assert watching.limit() == UNTIMED  # an evaluation, perhaps
    watching.begin(4, 8)
    assert watching.limit() == 10 * 8 * 1.0  # a second a step
    steps(watching, clock, [0.01] * 5)
    watching.begin(9, 1)
    assert watching.limit() == LEAST  # a pause of the machine isn't a hang


def test_the_thread_finds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "LEAST", 0.1)
    with StepWatch(tmp_path, 0) as watching:
        for _ in range(3):
            watching.begin(0, 1)
            time.sleep(0.001)
            watching.done()
        watching.begin(3, 1)
        deadline = time.monotonic() + 20
        while not (tmp_path / "stacks-0.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.1)
    assert "test_the_thread_finds_it" in (tmp_path / "stacks-0.txt").read_text()


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        ([1.0, 1.1, 0.9, 1.2], []),
        ([1.0, 1.1, 0.9, 2.5], [3]),
        ([0.01, 0.05, 0.01, 0.01], []),  # milliseconds hold nobody up
        ([0.2, 1.0], [1]),
        ([3.0, 1.0, 1.0, 1.0, 3.0], [0, 4]),
        ([1.0], []),
    ],
)
def test_who_is_slow(seconds, found):
    assert slow(seconds) == found


def test_one_is_named_when_it_becomes_slow(monkeypatch, caplog):
    """Of four processes, this is the first."""
    others = iter([[1.0, 1.0, 1.0], [1.0, 1.0, 5.0], [1.0, 1.0, 5.0], [1.0, 1.0, 1.0], [1.0, 1.0, 5.0]])
    monkeypatch.setattr(watch.hosts, "several", lambda: True)
    monkeypatch.setattr(watch.hosts, "gather", lambda own: [own, *next(others)])
    monkeypatch.setattr(watch.hosts, "name", lambda index: f"process {index}")
    own, counts = OwnTimes(), []
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            own.add(0.5)
            own.add(1.5)
            own.compare()
            counts.append(len(caplog.records))
    assert counts == [0, 1, 1, 1, 2]
    assert caplog.messages[0] == (
        "process 3 holds the others up: it needs 5.00 s for a dispatch by itself, the median is 1.00 s"
    )
