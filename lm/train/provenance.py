"""Where a run came from: code, versions, devices, flags. Recorded beside the run, no part of its identity."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("lm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "tokenizers")
ENVIRONMENT = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NPROC", "GLIBC_TUNABLES")  # and everything that begins with JAX_
PATCH_LIMIT = 2_000_000  # characters
FILE_LIMIT = 200_000  # bytes of an untracked file that the patch may hold


def provenance(folder: str | Path | None = None) -> dict[str, Any]:
    """What is known about this process, ready for JSON.

    folder: a folder in the git repository whose state is recorded, normally the experiment file's; default: here.
    "git" is absent outside a repository: {"commit", "dirty", "patch"}, the patch being everything that isn't in the
    commit, new files too, as `git apply` takes it ("patch_cut" is there if it was too long to keep whole).
    """
    facts: dict[str, Any] = {
        "time": clock(),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "devices": dict(Counter(d.device_kind for d in jax.devices())),
        "backend": jax.default_backend(),
        "cores": cores(),  # on CPU, large sums are divided among them, and their last bits depend on how
        "processes": jax.process_count(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith("JAX_") or name in ENVIRONMENT
        },
    }
    git = _git_state(Path(folder or Path.cwd()))
    return {**facts, "git": git} if git else facts


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def clock() -> str:
    """The time now, UTC, as ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_state(folder: Path) -> dict[str, Any] | None:
    root = _git(folder, "rev-parse", "--show-toplevel")
    commit = _git(folder, "rev-parse", "HEAD")
    if root is None or commit is None:
        return None
    top = Path(root.strip())
    patch = _git(top, "diff", "--binary", "HEAD") or ""
    untracked = (_git(top, "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    for name in filter(None, untracked):
        if len(patch) <= PATCH_LIMIT and (top / name).is_file() and (top / name).stat().st_size <= FILE_LIMIT:
            patch += _git(top, "diff", "--binary", "--no-index", "--", os.devnull, name, differ=True) or ""
    state: dict[str, Any] = {"commit": commit.strip(), "dirty": bool(patch or any(untracked)), "patch": patch}
    if len(patch) > PATCH_LIMIT:
        state.update(patch=patch[:PATCH_LIMIT], patch_cut=True)
    return state


def _git(folder: Path, *command: str, differ: bool = False) -> str | None:
    """The output of a git command, or None if there is no git or no repository. differ: exit status 1 is no failure."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command],
            capture_output=True,
            timeout=30,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # look, touch nothing
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode > (1 if differ else 0):
        return None
    return done.stdout.decode(errors="replace")
