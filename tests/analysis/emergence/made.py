"""Tables of what runs measured, made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lm.analysis.emergence.measured import Measured

Seeds = Sequence[Mapping[Any, float]]  # of each seed x -> value


def table(series: Mapping[str, Mapping[str, Seeds]]) -> Measured:
    """series -> metric -> the curve of each seed."""
    rows = [
        {"series": name, "seed": seed, "x": float(x), "step": x, "metric": metric, "value": float(value)}
        for name, metrics in series.items()
        for metric, seeds in metrics.items()
        for seed, curve in enumerate(seeds)
        for x, value in curve.items()
    ]
    return Measured(pd.DataFrame(rows, columns=pd.Index(["series", "seed", "x", "step", "metric", "value"])))


def runs(arms: Sequence[str], seeds: int = 2) -> pd.DataFrame:
    """A finished run for each arm and seed."""
    return pd.DataFrame(
        [
            {"id": f"{arm}-{seed}", "arm": arm, "seed": seed, "status": "done", "tokens": 100, "heldout_loss": 1.0}
            for seed in range(seeds)
            for arm in arms
        ]
    )
