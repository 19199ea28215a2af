"""Compiles a step for a machine that isn't here: `python -m lm.plan.worker` reads a job and writes what was found.

A process of its own, since how JAX starts differs: libtpu's settings, or as many virtual devices as the target has.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    job = json.load(sys.stdin)
    out = os.dup(1)
    os.dup2(2, 1)  # libtpu writes to stdout what it has to say
    found = _compiled(job)
    with os.fdopen(out, "w") as answer:
        json.dump(found, answer)


def _compiled(job: dict[str, Any]) -> dict[str, Any]:
    from lm.plan.hlo import large_buffers, traffic
    from lm.plan.step import Step
    from lm.sharding import layout

    devices = _devices(job)
    where = layout(job["mesh"], job["rules"], devices)
    step = Step.from_json(job["step"])
    start = time.perf_counter()
    lowered = step.lowered(where)
    try:
        compiled = lowered.compile()
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Ran out of memory" not in str(error):
            raise
        return {"exhausted": str(error)[:20_000], "seconds": time.perf_counter() - start}
    analysis = compiled.memory_analysis()
    text = compiled.as_text()
    return {
        "seconds": time.perf_counter() - start,
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "aliased": analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "code": analysis.generated_code_size_in_bytes,
        "traffic": traffic(text, dict(where.mesh.shape)),
        "buffers": large_buffers(text),
        "kernels": sorted(_kernels(text)),
        "spans": {axis: _span(where.mesh, axis) for axis, size in where.mesh.shape.items() if size > 1},
    }


def _devices(job: dict[str, Any]) -> Any:
    import jax

    if not job["topology"]:
        return jax.devices()
    from jax.experimental import topologies

    more: dict[str, Any] = {"chip_config_name": "megacore"} if job["topology"].startswith("v4") else {}
    if job["topology"].endswith(":1x1"):
        more["chips_per_host_bounds"] = (1, 1, 1)
    return topologies.get_topology_desc(platform="tpu", topology_name=job["topology"], **more).devices


def _kernels(text: str) -> set[str]:
    """The names of Pallas kernels that the program calls."""
    import re

    lines = [line for line in text.splitlines() if 'custom_call_target="tpu_custom_call"' in line]
    return {re.sub(r"[.\d]+$", "", m.group(1)) for line in lines if (m := re.search(r"%([\w.\-]+) = ", line))}


def _span(mesh: Any, axis: str) -> int:
    """How many axes of the machine's network the devices along an axis of the mesh differ in; 0 where unknown."""
    import numpy as np

    index = mesh.axis_names.index(axis)
    line = np.moveaxis(mesh.devices, index, 0).reshape(mesh.devices.shape[index], -1)[:, 0]
    coords = [getattr(device, "coords", None) for device in line]
    if any(c is None for c in coords):
        return 0
    return max(1, sum(len(set(values)) > 1 for values in zip(*coords, strict=True)))


if __name__ == "__main__":
    main()
