"""The plumbing of the training race: processes that take turns, equal first losses, a table and a file."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick_form_races_every_contestant_that_is_installed(tmp_path):
    contestants = ["lm", "plain JAX", *(["PyTorch"] if importlib.util.find_spec("transformers") else [])]
    command = [sys.executable, "tools/bench/train.py", "--quick", "--json", tmp_path / "found.json", "--contestants"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *contestants], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["numbers"]) == {"GPT, tiny", "Llama, tiny"}
    for case in found["numbers"].values():
        assert set(case["chunks"]) == set(contestants)
        assert max(case["losses"].values()) - min(case["losses"].values()) < 1e-4
        assert all(chunk["wall"] > 0 and chunk["memory"] > 0 for chunks in case["chunks"].values() for chunk in chunks)
    assert done.stdout.count("\n| ") == 2 + 2 * len(contestants) and found["machine"]["jax"]
