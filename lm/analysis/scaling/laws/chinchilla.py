"""Loss over parameters and tokens: Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", eq. 10."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law, positive


class Chinchilla(Law):
    """L(N, D) = E + A / N^alpha + B / D^beta.

    a = beta / (alpha + beta): the optimal size grows as C^a; b = 1 - a: the tokens as C^b.
    """

    name = "chinchilla"
    source = "Hoffmann et al. 2022, eq. 10"
    columns = ("params", "tokens")
    exponents = ("alpha", "beta")
    parameters = (
        positive("E", 0.2, 3, linear=True),
        positive("A", 1, 1e5, linear=True),
        positive("B", 1, 1e5, linear=True),
        positive("alpha", 0.1, 1.0),
        positive("beta", 0.1, 1.0),
    )

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        return p.E + p.A * np.exp(-p.alpha * np.log(x["params"])) + p.B * np.exp(-p.beta * np.log(x["tokens"]))

    def slopes(self, theta: np.ndarray, x: Columns) -> tuple[np.ndarray, np.ndarray]:
        """As the general ones, without complex numbers."""
        size, tokens = np.log(x["params"]), np.log(x["tokens"])
        alpha, beta = np.exp(theta[:, 3:4]), np.exp(theta[:, 4:5])
        of_size, of_tokens = np.exp(theta[:, 1:2] - alpha * size), np.exp(theta[:, 2:3] - beta * tokens)
        floor = np.exp(theta[:, :1])
        slopes = np.empty((len(theta), 5, len(size)))
        slopes[:, 0], slopes[:, 1], slopes[:, 2] = floor, of_size, of_tokens
        slopes[:, 3], slopes[:, 4] = -alpha * size * of_size, -beta * tokens * of_tokens
        return floor + of_size + of_tokens, slopes

    def derived(self, p: Mapping[str, float]) -> dict[str, float]:
        return allocation(p)

    def caution(self, x: Columns) -> list[str]:
        return one_line(x)


def allocation(p: Mapping[str, float]) -> dict[str, float]:
    """How a growing budget is divided: the exponents of the best size, a, and of its tokens, b."""
    return {"a": p["beta"] / (p["alpha"] + p["beta"]), "b": p["alpha"] / (p["alpha"] + p["beta"])}


def one_line(x: Columns) -> list[str]:
    """A sentence where runs of one budget or one ratio of tokens to parameters leave size and tokens tied."""
    size, tokens = np.log(x["params"]), np.log(x["tokens"])
    found = []
    if len(size) > 2 and np.ptp(size) > 0 and np.ptp(tokens) > 0:
        tie = np.corrcoef(size, tokens)[0, 1]
        if abs(tie) > 0.98:
            kind = "one ratio of tokens to parameters" if tie > 0 else "one compute budget"
            found.append(
                f"Sizes and tokens move together (correlation {tie:.3f}): with {kind} the law can't tell what each "
                "of them does; train sizes at several budgets."
            )
    for name, values in (("sizes", size), ("token counts", tokens)):
        if np.ptp(values) < np.log(4):
            found.append(f"The {name} span a factor of only {np.exp(np.ptp(values)):.2g}: their exponent is a guess.")
    return found
