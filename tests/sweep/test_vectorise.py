"""The planner: one program or one after another, by what was measured."""

import pytest

from lm.config import replace
from lm.sharding import layout
from lm.sweep import Sweep, grid, vectorise
from lm.sweep.manifest import manifest
from lm.sweep.measured import kept
from lm.sweep.vectorise import measure, vectorised_is_faster
from tests.sweep.test_sweep import LR, base, execute  # noqa: F401


@pytest.fixture
def runs(base):  # noqa: F811
    return [replace(base, {LR: rate}) for rate in (1e-3, 2e-3)]


def quiet(_: str) -> None:
    pass


def test_both_forms_are_measured(runs):
    found = measure(runs, layout())
    assert found.keys() == {"together", "alone"} and min(found.values()) > 0


def test_a_group_that_is_short_isnt_measured(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(vectorise, "measure", lambda *_: pytest.fail("it was measured"))
    assert not vectorised_is_faster(runs, layout(), tmp_path / "speeds.jsonl", quiet)  # on one CPU nothing is gained
    assert vectorised_is_faster(runs, layout("data=2"), tmp_path / "speeds.jsonl", quiet)


@pytest.mark.parametrize("faster", [True, False])
def test_a_long_group_is_measured_once_and_the_faster_form_taken(runs, tmp_path, monkeypatch, faster):
    said, measured = [], []
    numbers = {"together": 2.0 if faster else 1.0, "alone": 1.5}
    monkeypatch.setattr(vectorise, "measure", lambda runs, where: measured.append(len(runs)) or numbers)
    monkeypatch.setattr(vectorise, "WORTH", 0.0)
    path = tmp_path / "speeds.jsonl"
    assert vectorised_is_faster(runs, layout(), path, said.append) is faster
    assert vectorised_is_faster(runs, layout(), path, said.append) is faster
    assert measured == [2] and len(said) == 1 and "one after another" in said[0]
    (row,) = kept(path).values()
    assert (row["together"], row["alone"], row["runs"]) == (numbers["together"], 1.5, 2)


def test_a_sweep_as_one_program_finds_what_it_finds_one_after_another(base, tmp_path):  # noqa: F811
    sweep = Sweep(base=base, points=grid({LR: [1e-3, 2e-3, 4e-3]}))
    together, alone = (manifest(sweep, tmp_path / name) for name in ("together", "alone"))
    assert execute(together, together="always").done == execute(alone, together="never").done == 3
    for a, b in zip(together, alone, strict=True):
        assert a.folder.result()["heldout_loss"] == pytest.approx(b.folder.result()["heldout_loss"], rel=1e-5)
        assert (a.folder.result()["together"], b.folder.result()["together"]) == (3, 1)
    mixed = manifest(Sweep(base=base, points=grid({"model.width": [16, 32], LR: [1e-3, 2e-3]})), tmp_path / "mixed")
    assert execute(mixed, together="always", share=2).done == 4  # each worker takes half of a group at a time
    assert {entry.folder.result()["together"] for entry in mixed} == {1}
