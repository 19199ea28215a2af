"""The plumbing of the race between experts and a dense layer: processes that take turns, a table and a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick_form_races_every_contestant(tmp_path):
    command = [sys.executable, "tools/bench/moe.py", "--quick", "--json", tmp_path / "found.json"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    (case,) = found["numbers"].values()
    assert list(case["chunks"]) == ["dense", "dropless", "capacity", "plain"]
    assert all(chunk["wall"] > 0 and chunk["memory"] > 0 for chunks in case["chunks"].values() for chunk in chunks)
    assert case["metrics"]["dropless"] == case["metrics"]["plain"] and not case["metrics"]["dense"]
    assert 0 <= case["metrics"]["capacity"]["moe/dropped"] < 0.5
    assert done.stdout.count("\n| ") == 2 + 4 and found["machine"]["jax"]
