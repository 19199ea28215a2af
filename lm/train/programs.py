"""The compiled programs that a process keeps."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import jax

MAPS = 20_000  # of the 65,530 regions of memory that Linux lets a process map; a program for CPU takes some dozens


def make_room() -> None:
    """Forgets compiled programs where they have become so many that the process would soon crash.

    Programs that are called again are loaded from the compile cache. Does nothing where the system doesn't say.
    """
    with contextlib.suppress(OSError):
        if Path("/proc/self/maps").read_bytes().count(b"\n") > MAPS:
            jax.clear_caches()
            gc.collect()
