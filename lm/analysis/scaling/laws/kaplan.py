"""Loss over parameters and tokens: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", eq. 1.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law, positive
from lm.analysis.scaling.laws.chinchilla import one_line


class Kaplan(Law):
    """L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D, with no loss that can't be reduced.

    The paper's N leaves out embeddings; a table's `params` should too where its numbers are compared with the paper's.
    a = alpha_D / (alpha_N + alpha_D): by this law the optimal size grows as C^a for C = 6 N D.
    """

    name = "kaplan"
    source = "Kaplan et al. 2020, eq. 1.5"
    columns = ("params", "tokens")
    parameters = (
        positive("N_c", 1e11, 1e17),
        positive("D_c", 1e11, 1e17),
        positive("alpha_N", 0.03, 0.5),
        positive("alpha_D", 0.03, 0.5),
    )

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        of_size = (np.log(p.N_c) - np.log(x["params"])) * p.alpha_N / p.alpha_D
        return np.exp(p.alpha_D * np.log(np.exp(of_size) + p.D_c / x["tokens"]))

    def derived(self, p: Mapping[str, float]) -> dict[str, float]:
        both = p["alpha_N"] + p["alpha_D"]
        return {"a": p["alpha_D"] / both, "b": p["alpha_N"] / both}

    def caution(self, x: Columns) -> list[str]:
        return one_line(x)
