"""The plumbing of the compile-time bench: a table and a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick_form_compiles_every_case(tmp_path):
    command = [sys.executable, "tools/bench/depth.py", "--quick", "--json", tmp_path / "found.json"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["numbers"]) == 4 and all(s > 0 for times in found["numbers"].values() for s in times)
    assert done.stdout.count("\n| ") == 2 + 2 and found["machine"]["jax"]
