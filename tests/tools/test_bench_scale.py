"""The plumbing of the scale bench: bytes fall as 1/n, collectives are counted, steps compile, a table and a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick_form_measures_every_part(tmp_path):
    command = [sys.executable, "tools/bench/scale.py", "--quick", "--json", tmp_path / "found.json"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "found.json").read_text())["numbers"]
    assert [row["mesh"] for row in numbers["memory"]] == ["fsdp=1", "fsdp=2", "fsdp=4", "fsdp=8"]
    for count, row in zip((1, 2, 4, 8), numbers["memory"], strict=True):
        assert 1 / count <= row["part"] <= 1.01 / count  # the optimizer's count of steps is whole on every device
    ((name, found),) = numbers["collectives"].items()
    assert name == "ddp" and list(found) == ["all-reduce data"]
    assert set(numbers["compile"]) == {"one device", "fsdp", "fsdp_tp"}
    assert all(took > 0 for each in numbers["compile"].values() for took in each)
    assert done.stdout.count("\n| --- ") == 3
