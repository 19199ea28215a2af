"""The most arithmetic a device can do: what model FLOP/s are compared with.

Published dense bf16 peaks (fp16 for V100 and T4, which have no bf16 units), FLOP/s. Sources:

- TPU: the system-architecture pages of Google Cloud's TPU documentation (v2, v3, v4, v5e, v5p, v6e, TPU7x), a chip.
  JAX shows the two cores of a v2, v3 or TPU7x chip as two devices, so theirs are halved here.
- NVIDIA: the product datasheets (V100, T4, A10, A100, L4, L40S, H100, H200, B200, GB200); where a datasheet gives
  the rate with 2:4 sparsity, half of it.

Where nothing is published, a large matrix product is timed.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

# The first pattern found in the device's kind (as JAX gives it) holds.
PUBLISHED: tuple[tuple[str, float], ...] = (
    (r"TPU v2$", 46e12 / 2),
    (r"TPU v3$", 123e12 / 2),
    (r"TPU v4$", 275e12),
    (r"TPU v5( lite|e)$", 197e12),
    (r"TPU v5p?$", 459e12),
    (r"TPU v6( lite|e)$", 918e12),
    (r"TPU7x$", 2307e12 / 2),
    (r"\bGB200\b", 2500e12),
    (r"\bB200\b", 2250e12),
    (r"\b(H200|GH200)\b", 989.4e12),
    (r"\bH100 NVL\b", 835.5e12),
    (r"\bH100 PCIe\b", 756.5e12),
    (r"\bH100\b", 989.4e12),
    (r"\bA100\b", 312e12),
    (r"\bL40S\b", 362e12),
    (r"\bL4\b", 121e12),
    (r"\bA10\b", 125e12),
    (r"\bV100-PCI", 112e12),
    (r"\bV100\b", 125e12),
    (r"\bT4\b", 65e12),
)


def peak_flops(devices: Sequence[Any] | None = None) -> tuple[float, str]:
    """(FLOP/s of `devices` together, "published bf16" | "measured bf16 matmul" | "measured f32 matmul").

    devices: `jax.Device`s, all of them unless told. On CPU it is what the machine does, measured once a
    process (about 0.1 s) with all its cores: virtual CPU devices of one process share them.
    """
    devices = jax.devices() if devices is None else devices
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        return _measured("cpu", "float32") * len({d.process_index for d in devices}), "measured f32 matmul"
    published = published_flops(kind)
    if published is not None:
        return published * len(devices), "published bf16"
    return _measured(devices[0].platform, "bfloat16") * len(devices), "measured bf16 matmul"


def published_flops(kind: str) -> float | None:
    """FLOP/s of one device of this `device_kind`, or None if it isn't in the table."""
    return next((flops for pattern, flops in PUBLISHED if re.search(pattern, kind)), None)


@functools.cache
def _measured(platform: str, dtype: str) -> float:
    size = 1024 if platform == "cpu" else 8192
    device = jax.local_devices(backend=platform)[0]
    x = jax.device_put(jnp.ones((size, size), dtype), device)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    times: list[float] = []
    while sum(times) < 0.1 and len(times) < 50:
        start = time.perf_counter()
        product(x, x).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / median(times)
