"""Machines that a run can be planned for: what a chip of each kind can do, and how many of them a name stands for.

Sources:

- TPU: the pages of each generation in Google Cloud's TPU documentation: memory, its bandwidth, and the bandwidth
  between chips, which is given for all links of a chip together (v5p: 4,800 Gbit/s over the 6 links of a 3D torus, so
  100 GB/s one way over each; v5e and v6e: the 4 links of a 2D torus).
- NVIDIA: the product datasheets (memory, bandwidth, NVLink both ways, halved here) and the DGX systems' (InfiniBand of
  a GPU: 200 Gbit/s for A100, 400 from H100 on).
- Prices: on-demand list prices in US regions, dollars for a chip and hour, of Google Cloud for TPUs and of Lambda for
  GPUs. They change and few pay them: `--price` gives yours. None: nobody publishes one that we know.

Peak arithmetic is in `lm.train.peak`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lm.config import ConfigError
from lm.errors import unknown
from lm.launch import GPU_MEMORY
from lm.train.peak import published_flops

GIB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """A device as JAX shows it.

    kind: as JAX names it. memory: bytes that a program can use. bandwidth: of it, bytes/s. link: bytes/s one way over
    one link to a neighbour (TPU), or to all others of the node (GPU). outside: bytes/s one way of one device to other
    nodes or slices. torus: axes of a TPU's network, 0 for a GPU. node: devices of a node. per_chip: devices of a chip.
    """

    kind: str
    memory: float
    bandwidth: float
    link: float
    outside: float
    price: float | None
    torus: int = 0
    node: int = 8
    per_chip: int = 1

    @property
    def flops(self) -> float:
        """Dense bf16 FLOP/s of one device."""
        found = published_flops(self.kind)
        assert found is not None, self.kind
        return found


def _gpu(kind: str, gib: float, bandwidth: float, nvlink: float, infiniband: float, price: float | None) -> Chip:
    return Chip(kind, gib * GIB * float(GPU_MEMORY), bandwidth, nvlink / 2, infiniband / 8, price)


CHIPS: dict[str, Chip] = {
    "v4": Chip("TPU v4", 32 * GIB, 1228e9, 50e9, 6.25e9, 3.22, torus=3, node=4),
    "v5e": Chip("TPU v5 lite", 16 * GIB, 819e9, 50e9, 6.25e9, 1.20, torus=2, node=4),
    "v5p": Chip("TPU v5", 95 * GIB, 2765e9, 100e9, 6.25e9, 4.20, torus=3, node=4),
    "v6e": Chip("TPU v6 lite", 32 * GIB, 1638e9, 100e9, 12.5e9, 2.70, torus=2, node=4),
    # two devices a chip, which share its links
    "tpu7x": Chip("TPU7x", 96 * GIB, 7380e9 / 2, 50e9, 6.25e9, None, torus=3, node=8, per_chip=2),
    "a100": _gpu("NVIDIA A100-SXM4-80GB", 80, 2039e9, 600e9, 200e9, 1.79),
    "h100": _gpu("NVIDIA H100 80GB HBM3", 80, 3350e9, 900e9, 400e9, 2.99),
    "h200": _gpu("NVIDIA H200", 140, 4800e9, 900e9, 400e9, None),
    "b200": _gpu("NVIDIA B200", 179, 8000e9, 1800e9, 400e9, 4.99),
}

# Sizes in which Cloud TPU slices come, chips -> topology, from the tables of the same pages.
FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBIC = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8"}
CORES = ("v4", "v5p")  # their names count TensorCores, two of which a chip has: v5p-256 has 128 chips
MOST_COMPILED = 256  # chips; compile time grows with them


@dataclass(frozen=True)
class Target:
    """A machine: so many devices of a chip. topology: of a TPU slice, e.g. "4x4"; "" for GPUs."""

    name: str
    chip: Chip
    devices: int
    topology: str = ""

    @property
    def tpu(self) -> bool:
        return self.chip.torus > 0

    @property
    def generation(self) -> str:
        return next(name for name, chip in CHIPS.items() if chip is self.chip)

    @property
    def chips(self) -> int:
        return self.devices // self.chip.per_chip

    def describe(self) -> str:
        shape = f" in a {self.topology} slice" if self.topology else ""
        each = f", {self.devices} devices" if self.chip.per_chip > 1 else ""
        return f"{self.name}: {self.chips} x {self.chip.kind}{shape}{each}, {self.chip.memory / GIB:.1f} GiB each"


def target(name: str) -> Target:
    """`target("v5e-16")`, `target("v5p:4x4x8")`, `target("h100x8")`.

    TPU names are Cloud TPU's: v4-N and v5p-N count TensorCores (N / 2 chips), v5e-N, v6e-N and tpu7x-N count chips.
    Raises ConfigError for a machine that isn't known.
    """
    text = name.strip().lower()
    match = re.fullmatch(r"(?P<gen>[a-z0-9]+?)(?:-(?P<size>\d+)|:(?P<topology>\d+(?:x\d+)+)|x(?P<gpus>\d+))?", text)
    found = match.groupdict() if match else {"gen": text}
    chip = CHIPS.get(found["gen"])
    if chip is None:
        raise ConfigError(unknown(found["gen"], CHIPS, "no machine is known by the name") + _FORMS)
    if not chip.torus:
        if found.get("size") or found.get("topology"):
            raise ConfigError(f"'{name}': give the number of GPUs as {found['gen']}x8")
        return Target(text, chip, int(found.get("gpus") or 1))
    if found.get("gpus"):
        raise ConfigError(f"'{name}': a TPU slice has a size or a topology{_FORMS}")
    shape = found.get("topology") or _topology(found["gen"], int(found.get("size") or 0), name)
    sides = [int(side) for side in shape.split("x")]
    if len(sides) != chip.torus:
        raise ConfigError(f"'{name}': {found['gen']} has a network of {chip.torus} axes, e.g. {_example(chip)}")
    return Target(text, chip, math.prod(sides) * chip.per_chip, shape)


def _topology(generation: str, size: int, name: str) -> str:
    sizes = FLAT if CHIPS[generation].torus == 2 else CUBIC
    chips = size // 2 if generation in CORES else size
    if chips not in sizes or (generation in CORES and size % 2):
        each = 2 if generation in CORES else 1
        known = ", ".join(f"{generation}-{each * count}" for count in sizes)
        raise ConfigError(f"there is no slice '{name}'; there are {known}, and others as {generation}:{sizes[16]}")
    return sizes[chips]


def _example(chip: Chip) -> str:
    return "4x4" if chip.torus == 2 else "4x4x4"


_FORMS = "; give a target as v5e-16, v5p-256, v6e:8x8 or h100x8"
