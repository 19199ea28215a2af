"""What runs will take on a device: hours from measured or stated speed, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import jax

from lm.config import ConfigError
from lm.sharding import Layout
from lm.sweep.manifest import Entry
from lm.sweep.measured import keep, kept
from lm.train.peak import peak_flops, published_flops
from lm.train.speed import training_speeds

UTILISATION = 0.4  # of the published peak, where only a device's name is known


@dataclass(frozen=True)
class Speed:
    """FLOP/s that training reaches, by group, and where the numbers come from."""

    by_group: dict[str, float]
    source: str

    def hours(self, entry: Entry) -> float:
        return entry.planned.run.flops / self.by_group[entry.group] / 3600


def stated_peak(device: str) -> float:
    """A device's published FLOP/s. Raises ConfigError for one that isn't in the table."""
    peak = published_flops(device)
    if peak is None:
        raise ConfigError(f"no peak is known for '{device}'; say it as JAX does, e.g. 'H100', 'A100', 'TPU v5p'")
    return peak


def stated(entries: Sequence[Entry], device: str, utilisation: float = UTILISATION) -> Speed:
    """Speeds of a device by its published peak. Raises ConfigError for one that isn't in the table."""
    peak = stated_peak(device)
    if not 0 < utilisation <= 1:
        raise ConfigError(f"a utilisation of {utilisation} isn't a share of the peak; e.g. 0.4")
    speed = peak * utilisation
    return Speed({e.group: speed for e in entries}, f"{device}: {utilisation:.0%} of its published {peak:.3g} FLOP/s")


def flops_of(hours: float, device: str, utilisation: float = UTILISATION) -> float:
    """FLOPs of so many hours of a device, by its published peak. Raises ConfigError for one that isn't known."""
    return 3600 * hours * stated_peak(device) * utilisation


def here(entries: Sequence[Entry], path: Path, layout: Layout) -> Speed:
    """Speeds of this machine: of finished runs of the group where there are any, else a short measurement, kept."""
    device = f"{layout.mesh.size} {jax.devices()[0].device_kind}"
    before = kept(path)
    found, origin = {}, set()
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    for group, members in groups.items():
        done = [e.folder.result() for e in members if e.status() == "done"]
        key = f"training {group} on {device}, jax {jax.__version__}"
        speeds = [r["flops"] / r["tokens"] * r["tokens_per_second"] for r in done if r["tokens_per_second"]]
        if speeds:
            found[group] = median(speeds)
            origin.add("finished runs")
        elif key in before:
            found[group] = before[key]["flops_per_second"]
            origin.add("an earlier measurement")
        else:
            run = members[0].planned.run
            measured, failed = training_speeds({group: run}, layout, repeats=2, steps=2)
            if failed:
                found[group] = peak_flops(layout.mesh.devices.flatten().tolist())[0] * UTILISATION
                origin.add(f"{UTILISATION:.0%} of the peak, since it couldn't be measured ({failed[group]})")
                continue
            found[group] = measured[group]["tokens_per_second"] * run.flops / run.tokens
            keep(path, key, flops_per_second=found[group])
            origin.add("a measurement of some steps")
    return Speed(found, f"{device}, by {' and '.join(sorted(origin))}")


def over_budget(budget: str, hours: float, flops: float) -> str | None:
    """Why a plan is beyond a budget such as "10h", "30min" or "1e18" (FLOPs); None if it isn't."""
    text = budget.strip().lower().replace(" ", "")
    units = {"h": 1.0, "min": 1 / 60, "m": 1 / 60, "d": 24.0, "flops": 0.0, "": 0.0}
    number = text.rstrip("abcdfhilmnops")
    try:
        limit, unit = float(number), units[text[len(number) :]]
    except (ValueError, KeyError):
        raise ConfigError(f"a budget of '{budget}' can't be read; say e.g. 10h, 30min, 2d or 1e18 (FLOPs)") from None
    if unit == 0.0:
        return f"{flops:.3g} FLOPs, the budget is {limit:.3g}" if flops > limit else None
    return f"{hours:.3g} hours, the budget is {limit * unit:.3g}" if hours > limit * unit else None
