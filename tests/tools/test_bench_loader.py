"""The plumbing of the loader's benchmark."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick_form_says_how_many_times_the_demand_is_served(tmp_path):
    command = [
        sys.executable,
        "tools/bench/loader.py",
        "--quick",
        "--demand",
        "1000",
        "--json",
        tmp_path / "found.json",
    ]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["numbers"]) == 3 and all(rate > 0 for row in found["numbers"] for rate in row["tokens/s"])
    assert "times the demand" in done.stdout and found["machine"]["numpy"]
