"""Loss over parameters and how far beyond the optimum they are trained: Gadre et al. 2024, "Language models scale
reliably with over-training and on downstream tasks"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law, positive
from lm.analysis.scaling.objective import Objective


class Overtraining(Law):
    """L(N, M) = E + alpha N^-b + beta 6^(-b/2) (M N)^-b, for M = D / N tokens a parameter.

    M N are the tokens: this is Chinchilla's law with one exponent for both, so that the loss at any one M falls as
    C^-eta with eta = b / 2. Four parameters, which five small runs determine if one of them is over-trained.
    """

    name = "overtraining"
    source = "Gadre et al. 2024"
    columns = ("params", "tokens")
    parameters = (
        positive("E", 0.2, 3, linear=True),
        positive("alpha", 1, 1e5, linear=True),
        positive("beta", 1, 1e5, linear=True),
        positive("b", 0.05, 1.0),
    )
    objective = Objective("squared", on="value")

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        size, tokens = np.log(x["params"]), np.log(x["tokens"])
        return p.E + p.alpha * np.exp(-p.b * size) + p.beta * np.exp(-p.b * (np.log(6) / 2 + tokens))

    def derived(self, p: Mapping[str, float]) -> dict[str, float]:
        return {"eta": p["b"] / 2}

    def caution(self, x: Columns) -> list[str]:
        ratios = x["tokens"] / x["params"]
        if np.ptp(np.log(ratios)) < np.log(2):
            return [
                f"All runs have about {np.median(ratios):.3g} tokens a parameter: alpha and beta can't be told apart; "
                "over-train one small size."
            ]
        return []
