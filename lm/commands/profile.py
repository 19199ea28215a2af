"""What a trace of training steps says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lm.commands.options import RunPath, Shared, table
from lm.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Profile(Shared):
    """Print what took the time of the steps that a run was profiled for, and how long its devices were idle.

    lm train experiments/attention_ablation.py --profile steps=10:15
    lm profile results/runs/ID
    """

    run: RunPath
    """The run's folder."""
    top: int = 20
    """Operations to print."""

    def __call__(self) -> int:
        from lm.train import profile

        if self.top < 1:
            raise UserError(f"--top {self.top} must be at least 1")
        found = profile.read(Path(self.run))
        devices, steps = len(found.idle), found.steps
        rows = [
            {
                "operation": each.name,
                "from": place(each.source),
                "ms a step": 1e3 * each.seconds / steps / devices,
                "share": f"{each.seconds / found.busy:.1%}",
                "calls a step": each.calls / steps / devices,
            }
            for each in found.operations[: self.top]
        ]
        print(f"steps {found.first} to {found.last} of {self.run}: {1e3 * found.seconds / steps:.3g} ms a step\n")
        print(table(rows, tuple(rows[0])))
        shown, collective = (
            sum(each.seconds for each in chosen) / found.busy
            for chosen in (found.operations[: self.top], [each for each in found.operations if each.collective])
        )
        idle = list(found.idle.items())
        print(f"\n{len(rows)} of {len(found.operations)} operations, {shown:.0%} of busy time; times are of one device")
        print(f"collectives, waiting included: {collective:.1%} of busy time")
        print("programs: " + ", ".join(f"{name} {share:.1%}" for name, share in found.programs().items()))
        for device, share in idle[:16]:
            print(f"{device}: {share:.1%} idle")
        if len(idle) > 16:
            print(f"and {len(idle) - 16} more, {min(found.idle.values()):.1%} to {max(found.idle.values()):.1%} idle")
        return 0


def place(source: str) -> str:
    """The part of the model and the direction in an operation's source, shortened:
    "jit(_step)/transpose(jvp())/while/body/closed_call/mixer/dot_general" is "mixer/dot_general (backward)".
    """
    source, *more = source.split(":")  # of operations that were joined, the first one's
    backward = " (backward)" if "transpose(" in source else ""
    words = [word for word in re.split(r"[/()]+", source) if word]
    kept = [word for word in words if word not in NOISE and not word.startswith("_")]
    return "/".join(kept[-3:]) + backward + (f" and {len(more)} more" if more else "") if kept else ""


NOISE = {
    "jit",
    "jvp",
    "transpose",
    "vmap",
    "while",
    "body",
    "cond",
    "closed_call",
    "checkpoint",
    "rematted_computation",
}
