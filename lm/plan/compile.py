"""A step compiled for a target in a process of its own, and what that found."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from lm.errors import UserError
from lm.plan.step import Step
from lm.plan.targets import MOST_COMPILED, Target

MOST_VIRTUAL = 64  # devices that this machine stands in for
SILENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "TPU_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3", "TPU_LOG_DIR": "disabled"}


@dataclass(frozen=True)
class Compiled:
    """Bytes of one device, by the compiler. exhausted: its own words where the program doesn't fit."""

    by: str
    seconds: float
    arguments: float = 0
    outputs: float = 0
    aliased: float = 0
    temporaries: float = 0
    code: float = 0
    traffic: tuple[dict[str, Any], ...] = ()
    buffers: tuple[dict[str, Any], ...] = ()
    kernels: tuple[str, ...] = ()
    spans: dict[str, int] | None = None
    exhausted: str | None = None

    @property
    def total(self) -> float:
        """At once: what it is given, what it gives besides that, and what it needs meanwhile."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


def why_not(machine: Target) -> str | None:
    """Why nothing can be compiled for a target here, or None."""
    if machine.tpu:
        if machine.chips > MOST_COMPILED:
            return f"{machine.chips} chips are more than the {MOST_COMPILED} that compile in reasonable time"
        if importlib.util.find_spec("libtpu") is None:
            return "the TPU compiler isn't installed; pip install 'lm[aot]'"
    elif machine.devices > MOST_VIRTUAL:
        return f"{machine.devices} devices are more than the {MOST_VIRTUAL} that this machine can stand in for"
    return None


def environment(machine: Target) -> dict[str, str]:
    """Of a process that compiles for a target: none of its devices is here."""
    found = dict(os.environ) | SILENT | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    if machine.tpu:
        # no machine is asked what it is, and no chip is taken, so that several can compile at once
        return found | {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    flag = "--xla_force_host_platform_device_count"
    others = [part for part in os.environ.get("XLA_FLAGS", "").split() if not part.startswith(flag)]
    return found | {"NPROC": "16", "XLA_FLAGS": " ".join([*others, f"{flag}={machine.devices}"])}


def compiled(step: Step, machine: Target, mesh: str, rules: str | None = None) -> Compiled:
    """Raises UserError with the compiler's last line where it fails other than for memory."""
    topology = f"{machine.generation}:{machine.topology}" if machine.tpu else ""
    job = {"step": step.to_json(), "mesh": mesh, "rules": rules, "topology": topology}
    command = [sys.executable, "-m", "lm.plan.worker"]
    done = subprocess.run(command, input=json.dumps(job), env=environment(machine), capture_output=True, text=True)
    if done.returncode < 0:
        raise UserError(
            f"the compiler for {machine.name} was killed by signal {-done.returncode}; it may need more memory than "
            "this machine has: plan with --no-compile, or for fewer devices"
        )
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise UserError(f"compiling for {machine.name} on mesh {mesh} failed: {last[0] if last else 'no message'}")
    found = json.loads(done.stdout)
    by = "the TPU compiler" if machine.tpu else f"XLA for {machine.devices} virtual CPU devices"
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    return Compiled(by=by, **fields)


@dataclass(frozen=True)
class Excess:
    """What the TPU compiler says of a program that doesn't fit, in bytes."""

    used: float | None
    limit: float | None
    buffers: tuple[dict[str, Any], ...]


UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "": 1}


def excess(message: str) -> Excess:
    """Read from its message: how much was used, of how much, and the largest allocations."""
    sizes = r"([\d.]+)([KMGT]?)"
    forms = (f"Used {sizes} of {sizes} hbm", rf"\({sizes}\) exceeds available HBM \({sizes}\)")
    head = next(filter(None, (re.search(form, message) for form in forms)), None)
    used, limit = (_size(*head.group(1, 2)), _size(*head.group(3, 4))) if head else (None, None)
    buffers: list[dict[str, Any]] = []
    current: dict[str, Any] = {}
    for line in message.splitlines():
        text = line.strip()
        if match := re.match(r"\d+\. Size: ([\d.]+)([KMGT]?)", text):
            current = {"bytes": _size(*match.group(1, 2)), "source": "", "shape": ""}
            buffers.append(current)
        elif current and text.startswith("Operator:"):
            name = re.search(r'op_name="([^"]*)"', text)
            current["source"] = name.group(1) if name else ""
        elif current and text.startswith("Shape:"):
            current["shape"] = re.sub(r"\{[^}]*\}", "", text.removeprefix("Shape:").strip())
    return Excess(used, limit, tuple(buffers))


def _size(number: str, unit: str) -> float:
    return float(number) * UNITS[unit]
