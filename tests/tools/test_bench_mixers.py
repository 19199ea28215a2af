"""The plumbing of the race of mixers: turns with attention at every length, a slope, a table and a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_quick_form_races_mixers_against_attention(tmp_path):
    command = [sys.executable, "tools/bench/mixers.py", "--quick", "--json", tmp_path / "found.json"]
    command += ["--mixers", "Mamba-2", "window"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["numbers"]) == ["Mamba-2", "window"]
    for name, lengths in found["numbers"].items():
        assert [one["length"] for one in lengths] == [32, 64] and {one["tokens"] for one in lengths} == {128}
        for one in lengths:
            assert list(one["chunks"]) == ["attention", name] and one["train_flops"] > 0
            assert all(chunk["wall"] > 0 for chunks in one["chunks"].values() for chunk in chunks)
    assert done.stdout.count("\n| ") == 2 + 4 and found["machine"]["jax"]


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_slope_of_a_power_law_is_its_power(power, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "bench"))
    import mixers  # type: ignore[import-not-found]

    found = []
    for length in (128, 256, 512):
        wall = 8192 / length * length**power  # of as many rows as make up the tokens
        found.append({"length": length, "tokens": 8192, "chunks": {"one": [{"wall": wall * k} for k in (1, 1, 1.5)]}})
    found_slope = mixers.slope(found, "one")
    assert (found_slope.low, found_slope.median, found_slope.high) == pytest.approx((power,) * 3)
