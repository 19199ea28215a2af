"""The plumbing of the store's benchmark."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick_form_times_every_question_and_leaves_nothing_behind(tmp_path):
    within = tmp_path / "within"
    within.mkdir()
    command = [sys.executable, "tools/bench/store.py", "--quick", "--within", within, "--json", tmp_path / "found.json"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    asked = {(row["question"], row["files"]) for row in found["numbers"]}
    assert len(asked) == len(found["numbers"]) == 8 and all(min(row["seconds"]) > 0 for row in found["numbers"])
    assert found["machine"]["duckdb"] and "select id, min(loss)" in done.stdout
    assert not list(within.iterdir())
