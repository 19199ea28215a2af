"""What must be settled before JAX starts, and before the process does: the entry of the command `lm`."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys

from lm import paths

# glibc maps the temporary buffer of every dispatch anew, 4 KB a page fault. Huge pages make that 100 times fewer. Never
# giving the buffer back instead (mmap_max=0) was as fast and took 1.7 times the memory.
ALLOCATOR = "glibc.malloc.hugetlb=1"
# Collectives run beside computation. XLA ends a process that gives it a flag it doesn't know: a test asks it.
GPU_FLAGS = ("--xla_gpu_enable_latency_hiding_scheduler=true",)
GPU_MEMORY = "0.92"  # the share of a GPU's memory that JAX takes; its own default of 0.75 leaves the rest unused
COMPUTE = ("train", "sweep", "generate", "eval", "verify")  # commands that are worth starting anew for it


def main() -> None:
    """The command `lm`."""
    if sys.argv[1:2] and sys.argv[1] in COMPUTE:
        use_allocator()
    # importing and tracing make millions of small objects that stay; looking for dead cycles among them after every
    # 700 takes a tenth of the start
    gc.set_threshold(100_000, 20, 100)
    from lm.cli import main

    main()


def use_allocator() -> None:
    """Starts this program anew with `ALLOCATOR`, which the C library reads as a process begins.

    Does nothing where the variable is set (so never twice) or the C library isn't GNU's. The process keeps its id,
    its arguments and its files.
    """
    if "GLIBC_TUNABLES" in os.environ or not sys.platform.startswith("linux"):
        return
    try:
        gnu = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return
    if gnu:
        os.environ["GLIBC_TUNABLES"] = ALLOCATOR
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def prepare_jax() -> None:
    """What must be in the environment before JAX is imported: a compile cache, no deadlock on few cores, GPU flags."""
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        # jax 0.10 and 0.11 can deadlock with more virtual devices than threads; with one device, threads beyond the
        # cores make a step slower (1.4 times on two)
        os.environ.setdefault("NPROC", "16")
    if has_gpu():
        named = os.environ.get("XLA_FLAGS", "")
        ours = [flag for flag in GPU_FLAGS if flag.split("=")[0] not in named]
        os.environ["XLA_FLAGS"] = " ".join(filter(None, (named, *ours)))
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", GPU_MEMORY)
    elif importlib.util.find_spec("libtpu") and not has_tpu():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # libtpu is here for `lm plan`; JAX would look for its TPU
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(paths.cache_dir("xla")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def has_gpu() -> bool:
    """Whether JAX may find an NVIDIA GPU here, as far as can be said without JAX."""
    allowed = os.environ.get("JAX_PLATFORMS", "")
    return (not allowed or "cuda" in allowed or "gpu" in allowed) and os.path.exists("/dev/nvidiactl")


def has_tpu() -> bool:
    """Whether this machine has a TPU's devices, as far as can be said without JAX."""
    return any(os.path.exists(path) for path in ("/dev/accel0", "/dev/vfio/0"))


def give_back() -> None:
    """What compiling left free (some hundred MB) goes back to the system, where the C library can do that."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
