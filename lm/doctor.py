"""What this machine has, and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from typing import TextIO

from lm import paths
from lm.launch import ALLOCATOR, has_gpu

CORE = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pandas", "matplotlib", "tyro")
OPTIONAL = {"files": "pyarrow", "hf": "datasets", "tensorboard": "tensorboardX", "wandb": "wandb", "parity": "torch"}
ENOUGH_DISK = 2 << 30


def examine(out: TextIO) -> list[str]:
    """Writes a page of facts and returns the problems, which it also writes, each with its mend."""
    problems: list[str] = []
    print(
        f"python    {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        file=out,
    )
    for name in CORE:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "missing"
            problems.append(f"{name} is missing: pip install {name}")
        print(f"{name:<17} {version}", file=out)
    have = [extra for extra, module in OPTIONAL.items() if importlib.util.find_spec(module)]
    print(f"extras    {', '.join(have) or 'none'} (of {', '.join(OPTIONAL)})", file=out)
    _devices(out, problems)
    cache = paths.cache_dir()
    _disk(out, problems, "cache", str(cache))
    _disk(out, problems, "here", os.getcwd())
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    programs, size = _programs(compiled)
    print(f"compiled  {compiled}: {programs} programs, {size / 1e6:.0f} MB; deleting it costs time only", file=out)
    print(f"allocator {os.environ.get('GLIBC_TUNABLES') or f'{ALLOCATOR} in commands that compute'}", file=out)
    if has_gpu():
        memory = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION")
        print(f"GPU       XLA_FLAGS={os.environ.get('XLA_FLAGS', '')}, {memory} of its memory for JAX", file=out)
    if sys.dont_write_bytecode:
        print("bytecode  isn't kept, so starts take seconds longer: unset PYTHONDONTWRITEBYTECODE", file=out)
    for problem in problems:
        print(f"PROBLEM   {problem}", file=out)
    print("all well" if not problems else f"{len(problems)} problems", file=out)
    return problems


def _devices(out: TextIO, problems: list[str]) -> None:
    try:
        import jax

        devices = jax.devices()
    except (ImportError, RuntimeError) as error:
        problems.append(f"JAX finds no device: {str(error).splitlines()[0]}")
        return
    from lm.train.peak import peak_flops

    best, how = peak_flops()
    speed = f", peak {best / 1e9:.0f} GFLOP/s ({how})" if best else ""
    print(f"devices   {len(devices)} x {devices[0].device_kind} ({devices[0].platform}){speed}", file=out)
    print(f"attention {_attention()}", file=out)
    if devices[0].platform == "cpu" and shutil.which("nvidia-smi"):
        problems.append("there is an NVIDIA GPU that JAX doesn't see: pip install 'jax[cuda12]'")


def _attention() -> str:
    """Which form of attention usual rows of text get here, in each type."""
    from lm.nn import Mask
    from lm.nn.kernels.attention import Request, choose

    usual = {"batch": 8, "queries": 1024, "keys": 1024, "heads": 8, "kv_heads": 8, "width": 64, "value_width": 64}
    rest = {"bias": False, "softcap": None, "ordered": True}
    kinds = ("float32", "bfloat16")
    return ", ".join(f"{kind}: {choose(Request(mask=Mask(), dtype=kind, **usual, **rest))}" for kind in kinds)  # type: ignore[arg-type]


def _disk(out: TextIO, problems: list[str], what: str, path: str) -> None:
    there = path
    while not os.path.exists(there):
        there = os.path.dirname(there)
    free = shutil.disk_usage(there).free
    print(f"{what:<9} {path}: {free / 1e9:.0f} GB free", file=out)
    if free < ENOUGH_DISK:
        problems.append(f"only {free / 1e9:.1f} GB free at {path}: checkpoints may not fit; free some or use --results")
    if not os.access(there, os.W_OK):
        problems.append(f"no permission to write to {path}: choose another folder (LM_CACHE for the cache, --results)")


def _programs(folder: str) -> tuple[int, int]:
    """Number of compiled programs in JAX's cache and their bytes."""
    files = [e for e in os.scandir(folder) if e.is_file()] if os.path.isdir(folder) else []
    return sum(e.name.endswith("-cache") for e in files), sum(e.stat().st_size for e in files)
