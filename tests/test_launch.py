"""The command starts itself anew once, with the allocator's settings, and is otherwise the same process."""

import importlib.util
import os
import subprocess
import sys

import pytest

from lm import launch

PROGRAM = """
import os, sys
from lm import launch
print("began", flush=True)
launch.use_allocator()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), *sys.argv[1:], sys.stdin.read())
sys.exit(3)
"""
GNU = sys.platform.startswith("linux") and "CS_GNU_LIBC_VERSION" in os.confstr_names


def started(**environment: str) -> tuple[int, int, list[str]]:
    """(process id, exit code, lines) of the program with two arguments and something to read."""
    clean = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "a b", "--c"],
        env=clean | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate("read")
    return process.pid, process.returncode, out.splitlines()


@pytest.mark.skipif(not GNU, reason="the settings are the GNU C library's")
def test_it_starts_anew_once_and_keeps_process_arguments_input_and_exit_code():
    pid, code, lines = started()
    assert lines == ["began", "began", f"{pid} {launch.ALLOCATOR} a b --c read"]
    assert code == 3


def test_what_the_user_set_stays():
    pid, _, lines = started(GLIBC_TUNABLES="glibc.malloc.arena_max=4")
    assert lines == ["began", f"{pid} glibc.malloc.arena_max=4 a b --c read"]


@pytest.mark.parametrize(("flags", "threads"), [("--xla_force_host_platform_device_count=4", "16"), ("", None)])
def test_threads_are_added_only_for_virtual_devices(monkeypatch, flags, threads):
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")
    launch.prepare_jax()
    assert os.environ.get("NPROC") == threads
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "kept"


def test_the_compile_cache_is_a_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("LM_CACHE", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    launch.prepare_jax()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "xla")


def test_jax_is_not_imported_before_its_environment_is_there():
    """JAX reads the variables as it is imported: set later, the compile cache would silently not be used."""
    code = "import sys; import lm.cli, lm.launch; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_gpu_flags_are_added_only_where_there_is_a_gpu_and_leave_the_users_own(monkeypatch):
    for gpu, mine, expected in (
        (False, "--mine=1", "--mine=1"),
        (True, "", launch.GPU_FLAGS[0]),
        (True, "--mine=1", f"--mine=1 {launch.GPU_FLAGS[0]}"),
        (True, "--xla_gpu_enable_latency_hiding_scheduler=false", "--xla_gpu_enable_latency_hiding_scheduler=false"),
    ):
        monkeypatch.setattr(launch, "has_gpu", lambda gpu=gpu: gpu)
        monkeypatch.setenv("XLA_FLAGS", mine)
        monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
        launch.prepare_jax()
        assert os.environ["XLA_FLAGS"] == expected
        assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.5"


def test_a_process_that_may_only_use_the_cpu_has_no_gpu(monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/nvidiactl")
    for platforms, found in (("cpu", False), ("", True), ("cuda,cpu", True), ("tpu", False)):
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
        assert launch.has_gpu() == found


@pytest.mark.parametrize(("tpu", "platforms"), [(True, None), (False, "cpu")])
def test_a_tpu_compiler_alone_is_no_tpu(monkeypatch, tpu, platforms):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "libtpu")
    monkeypatch.setattr(launch, "has_gpu", lambda: False)
    monkeypatch.setattr(launch, "has_tpu", lambda: tpu)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    launch.prepare_jax()
    assert os.environ.get("JAX_PLATFORMS") == platforms


def test_this_xla_knows_the_gpu_flags():
    """One that doesn't know a flag ends the process as it starts."""
    environment = os.environ | {"XLA_FLAGS": " ".join(launch.GPU_FLAGS), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.device_count())"], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "1", done.stderr
