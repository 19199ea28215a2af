"""Disks that are full or can't be written to: one clear line, and what was done stays."""

import subprocess

import pytest

from lm.sweep import Sweep, grid
from lm.sweep.manifest import manifest
from tests.sweep.test_sweep import LR, base, execute  # noqa: F401


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, of 6 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def losses(entries):
    return [entry.folder.result()["heldout_loss"] for entry in entries if entry.status() == "done"]


def test_a_full_disk_is_said_and_what_was_done_stays(base, disk, tmp_path):  # noqa: F811
    sweep = Sweep(base=base, points=grid({LR: [1e-3, 2e-3, 4e-3]}))
    whole = manifest(sweep, tmp_path / "whole")
    execute(whole)
    entries = manifest(sweep, disk)
    assert execute(entries[:1]).done == 1
    first = (entries[0].folder.path / "rows.jsonl").read_bytes()
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    outcome = execute(entries)
    assert (outcome.done, outcome.before, len(outcome.failed)) == (0, 1, 2)
    assert all("the disk is full" in line or "No space left" in line for line in outcome.failed), outcome.failed
    assert (entries[0].folder.path / "rows.jsonl").read_bytes() == first

    (disk / "filler").unlink()
    for entry in entries:
        entry.folder.retry()
    assert execute(entries).done == 2
    assert losses(entries) == losses(whole)


def test_a_folder_that_cant_be_written_to_is_said(base, disk, tmp_path):  # noqa: F811
    entries = manifest(Sweep(base=base, points=grid({LR: [1e-3, 2e-3]})), disk)
    assert execute(entries[:1]).done == 1
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    outcome = execute(entries)
    assert (outcome.done, outcome.before) == (0, 1)
    (line,) = outcome.failed
    assert "Read-only file system" in line and str(disk) in line
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert execute(entries).done == 1
