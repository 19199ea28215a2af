"""JAX is set up before anything imports it: eight virtual CPU devices and a persistent compilation cache.

Where beartype is installed, the shapes that functions declare are checked whenever they are called or traced.
"""

import importlib.metadata
import importlib.util
import os
import time

os.environ.setdefault("NPROC", "16")  # jax 0.10 and 0.11 can deadlock with many virtual devices on few cores
os.environ.setdefault("JAX_PLATFORMS", "cpu")
flags = "--xla_force_host_platform_device_count=8"
if importlib.metadata.version("jax") < "0.11":
    # programs compile six times faster; newer versions, which CI runs the core tests on, keep the default code
    flags += " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", flags)
os.environ.setdefault("LM_CACHE", os.path.join(os.path.dirname(__file__), ".cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.environ["LM_CACHE"], "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("MPLBACKEND", "agg")

if importlib.util.find_spec("beartype"):
    from jaxtyping import _import_hook, install_import_hook

    def methods_only(self, node):
        """Leaves the making of an object alone: a config checks itself, with messages that are tested."""
        self._parents.append(node)
        self.generic_visit(node)
        self._parents.pop()
        return node

    _import_hook.JaxtypingTransformer.visit_ClassDef = methods_only
    install_import_hook(["lm.nn", "lm.models", "lm.infer", "lm.objectives"], "beartype.beartype")

import pytest  # noqa: E402

checked = time.monotonic()


@pytest.fixture(autouse=True)
def _programs_are_given_back():
    """A process of thousands of tests compiles more programs than Linux has room for."""
    global checked
    yield
    if time.monotonic() > checked + 2:
        from lm.train.programs import make_room

        make_room()
        checked = time.monotonic()
