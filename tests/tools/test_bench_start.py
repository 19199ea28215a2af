"""The plumbing of the start benchmark."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick_form_reaches_the_first_step_of_a_run(tmp_path):
    command = [sys.executable, "tools/bench/start.py", "--quick", "--json", tmp_path / "found.json"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["numbers"]
    assert {"lm --help", "cold", "warm"} <= set(found)
    assert all(wall > 0 and cpu > 0 for pairs in found.values() for wall, cpu in pairs)
