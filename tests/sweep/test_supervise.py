"""Waiting for workers: those that end are replaced, and those that can't begin aren't for ever."""

import pytest

from lm.config import config
from lm.sweep import Sweep, grid, supervise
from lm.sweep.launchers.base import Launcher
from lm.sweep.launchers.work import Work
from lm.sweep.manifest import manifest
from lm.sweep.supervise import NoProgress
from tests.sweep.toy import tiny

started: list[int] = []


@config
class Ending(Launcher):
    """Workers that end as they begin."""

    def submit(self, work):
        started.extend(work.numbers)
        return [f"job {len(started)}.{number}" for number in work.numbers]

    def poll(self, jobs):
        return dict.fromkeys(jobs, "ended")

    def cancel(self, jobs):
        pass


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "POLL", 1e-4)
    started.clear()
    entries = manifest(Sweep(base=tiny(), points=grid({}), seeds=2), tmp_path)
    (tmp_path / "toy").mkdir()
    return entries, Work(name="toy", manifest=tmp_path / "toy" / "manifest.jsonl", workers=3)


def test_workers_that_never_get_anywhere_are_given_up(sweep):
    entries, work = sweep
    with pytest.raises(NoProgress, match=f"ended {supervise.PATIENCE} times in a row"):
        supervise.supervise(Ending(), work, entries, lambda _: None)
    assert {started.count(number) for number in range(3)} == {supervise.PATIENCE + 1}


def test_each_run_that_is_done_gives_workers_new_patience(sweep):
    entries, work = sweep

    def finish_one_late(_):
        if len(started) == 3 * supervise.PATIENCE and entries[0].status() == "new":
            entries[0].folder.path.mkdir(parents=True)
            entries[0].folder.finish({"heldout_loss": 1.0})

    with pytest.raises(NoProgress):
        supervise.supervise(Ending(), work, entries, finish_one_late)
    assert {started.count(number) for number in range(3)} == {2 * supervise.PATIENCE + 1}
