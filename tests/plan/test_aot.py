"""The TPU compiler takes a training step of every kind of attention, with the fused kernel wherever that can serve."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from lm.plan.compile import environment
from lm.plan.targets import target

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="libtpu isn't installed: pip install lm[aot]"
    ),
]
FUSED = ("MHA", "GQA", "MQA", "window", "MLA", "differential")
KERNELS = {"fwd", "dq", "dkv"}


@pytest.fixture(scope="module")
def compiled():
    read, write = os.pipe()
    settings = environment(target("v5e-4")) | {"ANSWER": str(write)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.plan.kinds"], env=settings, pass_fds=(write,), capture_output=True, text=True
    )
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(said)


@pytest.mark.parametrize("kind", FUSED)
def test_compiles_with_the_fused_kernel(compiled, kind):
    names = " ".join(compiled[kind]["kernels"])
    assert all(f"_{part}" in names for part in KERNELS), compiled[kind]
    assert 0 < compiled[kind]["bytes"] < 1 << 30


def test_every_kind_was_compiled(compiled):
    assert set(compiled) == set(FUSED)
