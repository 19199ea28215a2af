"""What this machine has, and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from typing import TextIO

from lm import paths

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
    print(f"compiled  {compiled} ({_size(compiled) / 1e6:.0f} MB)", file=out)
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
    if devices[0].platform == "cpu" and shutil.which("nvidia-smi"):
        problems.append("there is an NVIDIA GPU that JAX doesn't see: pip install 'jax[cuda12]'")


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


def _size(folder: str) -> int:
    return sum(e.stat().st_size for e in os.scandir(folder) if e.is_file()) if os.path.isdir(folder) else 0
