"""What a plan says before anything is spent."""

import json

import pytest

from lm.config import ConfigError, replace
from lm.sweep import Sweep, estimate, grid
from lm.sweep import manifest as module
from lm.sweep.manifest import manifest
from lm.sweep.status import last_rows, state
from tests.sweep.test_sweep import LR, base, execute  # noqa: F401


def test_a_manifest_read_back_is_the_one_that_was_written(base, tmp_path):  # noqa: F811
    entries = manifest(Sweep(base=base, points=grid({LR: [1e-3, 2e-3]}), seeds=2), tmp_path)
    path = tmp_path / "many" / "manifest.jsonl"
    module.write(entries, path)
    assert module.read(path) == entries
    row = json.loads(path.read_text().splitlines()[0])
    assert row["memory"] > 4 * 4 * row["params"]  # weights, gradients, two moments, in float32


def test_planning_again_says_what_is_new_changed_and_gone(base, tmp_path):  # noqa: F811
    path = tmp_path / "many" / "manifest.jsonl"
    first = manifest(Sweep(base=base, points=grid({LR: [1e-3, 2e-3]})), tmp_path)
    assert module.changes(module.rows(path), first) is None
    module.write(first, path)
    longer = replace(base, {"train.steps": 5})
    found = module.changes(module.rows(path), manifest(Sweep(base=longer, points=grid({LR: [2e-3, 3e-3]})), tmp_path))
    assert found is not None
    assert found.new == ("learning_rate=0.003 seed 0",) and found.gone == ("learning_rate=0.001 seed 0",)
    assert found.changed == {"learning_rate=0.002 seed 0": "train.steps: 4 -> 5"}
    assert found.text().count("\n") == 2
    same = module.changes(module.rows(path), first)
    assert same is not None and same.text() == ""


def test_hours_are_flops_over_speed(base, tmp_path):  # noqa: F811
    entries = manifest(Sweep(base=base, points=grid({LR: [1e-3]})), tmp_path)
    speed = estimate.stated(entries, "NVIDIA H100 80GB HBM3", utilisation=0.5)
    assert speed.hours(entries[0]) == pytest.approx(base.flops / (0.5 * 989.4e12) / 3600)
    assert "50% of its published" in speed.source
    with pytest.raises(ConfigError, match="no peak is known for 'abacus'"):
        estimate.stated(entries, "abacus")


def test_this_machine_is_measured_once_and_finished_runs_know_better(base, tmp_path):  # noqa: F811
    from lm.sharding import layout

    long = replace(base, {"train.steps": 40, "record.every": 1})  # so long that some of its steps are timed
    entries = manifest(Sweep(base=long, points=grid({LR: [1e-3, 2e-3]})), tmp_path)
    kept = tmp_path / "speeds.jsonl"
    first = estimate.here(entries, kept, layout())
    assert "a measurement" in first.source and first.hours(entries[0]) > 0
    again = estimate.here(entries, kept, layout())
    assert again.by_group == first.by_group and "an earlier measurement" in again.source
    execute(entries[:1])
    after = estimate.here(entries, kept, layout())
    assert after.source.endswith("by finished runs")
    result = entries[0].folder.result()
    assert after.by_group[entries[0].group] == pytest.approx(
        result["flops"] / result["tokens"] * result["tokens_per_second"]
    )


@pytest.mark.parametrize(
    ("budget", "beyond"),
    [("3h", False), ("1h", True), ("90min", True), ("121min", False), ("1d", False), ("1e18", False), ("1e14", True)],
)
def test_a_budget_is_hours_or_flops(budget, beyond):
    assert bool(estimate.over_budget(budget, hours=2.0, flops=1e15)) == beyond


@pytest.mark.parametrize("budget", ["much", "3 bananas", ""])
def test_a_budget_that_cant_be_read_is_said(budget):
    with pytest.raises(ConfigError, match="10h"):
        estimate.over_budget(budget, 1.0, 1.0)


def test_the_state_of_a_sweep_is_read_from_its_folders(base, tmp_path):  # noqa: F811
    entries = manifest(Sweep(base=base, points=grid({LR: [1e-3, 1e30, 2e-3]})), tmp_path)
    execute(entries[:2])
    now = state(entries)
    assert now.counts == {"done": 1, "failed": 1, "new": 1}
    assert now.best is not None and now.best.entry == entries[0]
    assert now.runs[0].row()["step"] == "4/4" and now.runs[0].left == 0
    assert now.runs[2].left == base.flops and "learning_rate" in now.runs[1].note
    assert now.seconds_left is None  # nothing runs
    assert "1 done, 1 failed, 1 new; best" in now.line()


def test_the_end_of_long_rows_is_read_without_the_rest(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"step": i, "pad": "x" * 200}) + "\n" for i in range(1000)]
    path.write_text("".join(lines) + '{"step": 1000, "torn')
    rows = last_rows(path)
    assert [row["step"] for row in rows] == list(range(1000 - len(rows), 1000)) and 10 < len(rows) < 100
    assert last_rows(tmp_path / "none") == []
