"""The plumbing of the decoding race: processes that take turns, equal tokens, a table and a file."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick_form_races_every_contestant_that_is_installed(tmp_path):
    command = [sys.executable, "tools/bench/decode.py", "--quick", "--json", tmp_path / "found.json"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    generation, context = found["numbers"].values()
    transformers = ["transformers"] if importlib.util.find_spec("transformers") else []
    assert list(generation["chunks"]) == ["lm", "plain", *transformers]
    assert list(context["chunks"]) == ["MHA", "MQA", "plain MQA"]
    for case in (generation, context):
        assert all(chunk["wall"] > 0 and chunk["memory"] > 0 for chunks in case["chunks"].values() for chunk in chunks)
    assert done.stdout.count("\n| ") == 2 + 5 + len(transformers) and found["machine"]["jax"]
