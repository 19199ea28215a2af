"""TPU slices of Google Cloud: which there are, and how their chips are spread over hosts.

Sources: Google Kubernetes Engine, "Plan TPUs in GKE" (cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus) for
labels, topologies and machines; Cloud TPU's pages on v4, v5p and TPU7x for the largest slice of each. Compared with the
table of Google's own launcher xpk 1.16 (its core/system_characteristics.py) on 2026-11-22.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from lm.config import ConfigError, config

CUBE = 4  # larger slices of three dimensions are made of cubes of 4x4x4 chips
FLAT = {  # topology -> chips a host may have, the usual one first
    "1x1": (1,),
    "2x2": (4,),
    "2x4": (8, 4),
    "4x4": (4,),
    "4x8": (4,),
    "8x8": (4,),
    "8x16": (4,),
    "16x16": (4,),
}
SMALL = {"2x2x1": (4,), "2x2x2": (4,), "2x2x4": (4,), "2x4x4": (4,)}


@dataclass(frozen=True)
class Generation:
    """What sets a generation apart: its node label, and its topologies of up to 64 chips, or of fewer than a cube."""

    label: str
    topologies: dict[str, tuple[int, ...]]
    largest: int | None = None  # chips of the largest slice of cubes; None: there are none

    def hosts_of(self, topology: str) -> tuple[int, ...]:
        """The numbers of chips that a host of this topology may have; none for a topology that doesn't exist."""
        if topology in self.topologies or self.largest is None:
            return self.topologies.get(topology, ())
        if not re.fullmatch(r"[1-9]\d{0,2}x[1-9]\d{0,2}x[1-9]\d{0,2}", topology):
            return ()
        shape = _shape(topology)
        cubes = all(side % CUBE == 0 for side in shape) and list(shape) == sorted(shape)
        return (4,) if cubes and math.prod(shape) <= self.largest else ()

    def says(self) -> str:
        """The topologies in words."""
        listed = ", ".join(self.topologies)
        if self.largest is None:
            return listed
        return f"{listed}, and AxBxC of multiples of {CUBE} with A <= B <= C and at most {self.largest:,} chips"


GENERATIONS = {
    "v4": Generation("tpu-v4-podslice", SMALL, 4096),
    "v5e": Generation("tpu-v5-lite-podslice", FLAT),
    "v5p": Generation("tpu-v5p-slice", SMALL, 6144),
    "v6e": Generation("tpu-v6e-slice", FLAT),
    "tpu7x": Generation("tpu7x", {"1x1x1": (1,), **SMALL}, 9216),
}


@config
class TPU:
    """A TPU slice. One worker has it whole, with a process on each of its hosts."""

    kind: Literal["v4", "v5e", "v5p", "v6e", "tpu7x"]
    topology: str
    """How its chips are arranged, e.g. 4x4 (v5e, v6e) or 2x2x4 (v4, v5p, tpu7x)."""
    chips_per_host: int | None = None
    """Only where machines differ: 2x4 is one host of 8 chips (the default) or two of 4."""

    def __post_init__(self) -> None:
        found = GENERATIONS[self.kind].hosts_of(self.topology)
        if not found:
            raise ConfigError(
                f"TPU {self.kind} has no topology {self.topology}; it has {GENERATIONS[self.kind].says()}"
            )
        if self.chips_per_host not in (None, *found):
            allowed = " or ".join(map(str, found))
            raise ConfigError(
                f"a host of TPU {self.kind} {self.topology} has {allowed} chips, not {self.chips_per_host}"
            )

    @property
    def label(self) -> str:
        """The value of a node's label cloud.google.com/gke-tpu-accelerator."""
        return GENERATIONS[self.kind].label

    @property
    def chips(self) -> int:
        """Chips of a host."""
        return self.chips_per_host or GENERATIONS[self.kind].hosts_of(self.topology)[0]

    @property
    def hosts(self) -> int:
        return math.prod(_shape(self.topology)) // self.chips


def _shape(topology: str) -> tuple[int, ...]:
    return tuple(map(int, topology.split("x")))
