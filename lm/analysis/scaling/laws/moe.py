"""Loss of mixtures of experts over size and number of experts: Clark et al. 2022, "Unified Scaling Laws for Routed
Language Models"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law, positive, real
from lm.analysis.scaling.objective import Objective


class MixtureOfExperts(Law):
    """log10 L = a log10 N + b log10 E^ + c log10 N log10 E^ + d, for one number of training tokens.

    N: parameters of the model with one expert. E^: the number of experts E (`experts`, 1 for a dense model), held
    between E_start and E_max: 1 / E^ = 1 / (E - 1 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max.
    N_cutoff = 10^(-b/c): the size from which more experts no longer help.
    """

    name = "moe"
    source = "Clark et al. 2022"
    columns = ("params", "experts")
    parameters = (
        real("a", -0.3, 0.0),
        real("b", -0.3, 0.0),
        real("c", 0.0, 0.03),
        real("d", 0.5, 3.0),
        positive("E_start", 1, 4),
        positive("E_max", 50, 2000),
    )
    objective = Objective("squared")

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        inverse = 1 / (x["experts"] - 1 + 1 / (1 / p.E_start - 1 / p.E_max)) + 1 / p.E_max
        size, experts = np.log10(x["params"]), -np.log(inverse) / np.log(10)
        return np.exp(np.log(10) * (p.a * size + p.b * experts + p.c * size * experts + p.d))

    def derived(self, p: Mapping[str, float]) -> dict[str, float]:
        power = -p["b"] / p["c"] if p["c"] else np.inf
        return {"N_cutoff": float(10**power) if power < 300 else np.inf}

    def caution(self, x: Columns) -> list[str]:
        counts = np.unique(x["experts"])
        if len(counts) < 5:
            return [f"Only {len(counts)} numbers of experts: E_start and E_max are a guess."]
        return []
