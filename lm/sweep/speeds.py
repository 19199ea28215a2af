"""The speeds in an ablation's report: measured side by side, once for a device and version, and kept in a file.

The speeds that runs wrote themselves were taken at different times, whatever else the machine did meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from lm.config import content_hash
from lm.infer.speed import decode_speed
from lm.models import as_decoder
from lm.sharding import Layout
from lm.sweep.experiment import Ablation
from lm.sweep.manifest import Entry
from lm.sweep.measured import keep, kept
from lm.train.run import Run
from lm.train.speed import training_speeds

if TYPE_CHECKING:
    import pandas as pd

DECODE_BATCH = 4


def with_training_speed(
    runs: pd.DataFrame, entries: tuple[Entry, ...], path: Path, layout: Layout
) -> tuple[pd.DataFrame, list[str]]:
    """The runs with the training speed of each arm that has a finished run, and what couldn't be measured."""
    arms = finished(entries)
    keys = {arm: _key("train", run, str(dict(layout.mesh.shape))) for arm, run in arms.items()}
    speeds, failed = kept(path), {}
    if not all(key in speeds for key in keys.values()):
        measured, failed = training_speeds(arms, layout)
        for arm, numbers in measured.items():
            keep(path, keys[arm], **numbers)
        speeds = kept(path)
    columns = {
        "tokens_per_second": "tokens_per_second",
        "tokens_per_second_low": "low",
        "tokens_per_second_high": "high",
    }
    found = {arm: speeds.get(key, {}) for arm, key in keys.items()}
    runs = runs.assign(**{name: [found.get(arm, {}).get(of) for arm in runs["arm"]] for name, of in columns.items()})
    notes = [f"Training speed: arms in turns on {jax.devices()[0].device_kind}, jax {jax.__version__}."]
    return runs, notes + [f"Training speed of {arm} could not be measured: {why}" for arm, why in failed.items()]


def decode_table(experiment: Ablation, entries: tuple[Entry, ...], path: Path) -> tuple[pd.DataFrame | None, list[str]]:
    """Decoding speed of each arm that has a finished run, at each context, and what couldn't be measured."""
    import pandas as pd

    if not experiment.decode_contexts:
        return None, []
    speeds, rows, notes = kept(path), [], []
    for context in experiment.decode_contexts:
        for arm, run in finished(entries).items():  # arms take turns, so that a slow minute hits all of them
            key = _key("decode", run.model, f"{context} {DECODE_BATCH}")
            if key not in speeds:
                try:
                    speeds[key] = decode_speed(as_decoder(run.model, "decoding speed"), context, DECODE_BATCH)
                    keep(path, key, **speeds[key])
                except Exception as error:  # out of memory, a mixer that can't decode: the rest is still worth showing
                    notes.append(f"Decoding of {arm} at {context} tokens could not be measured: {error}")
                    continue
            row = {name: value for name, value in speeds[key].items() if name != "key"}
            rows.append({"arm": arm, **row, "device": jax.devices()[0].device_kind})
    return (pd.DataFrame(rows) if rows else None), notes


def finished(entries: tuple[Entry, ...]) -> dict[str, Run]:
    """One finished run of each arm that has any."""
    return {entry.planned.arm: entry.planned.run for entry in reversed(entries) if entry.status() == "done"}


def _key(kind: str, what: Any, more: str) -> str:
    """What a speed is of: it holds for one program on one kind of device under one version of JAX."""
    return content_hash([what], kind, more, jax.devices()[0].device_kind, jax.__version__)
