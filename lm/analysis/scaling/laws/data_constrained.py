"""Loss where tokens are repeated: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", eq. 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law, positive
from lm.analysis.scaling.laws.chinchilla import allocation

REPEATED = 4.0  # times the tokens are seen: fewer are as good as new ones, and say nothing about R_D


class DataConstrained(Law):
    """L = E + A / N'^alpha + B / D'^beta: Chinchilla's law of an effective size N' and effective tokens D'.

    D' = U + U R_D (1 - exp(-(D / U - 1) / R_D)) for U unique of D tokens seen: repeated tokens are worth less the
    oftener they were seen, and never more than R_D times the unique ones. N' is the same function of the size N with
    R_N, where U is replaced by the compute-optimal size for U unique tokens, G (G U)^(beta/alpha) with
    G = (alpha A / (beta B))^(1/(alpha+beta)), or by N where that is smaller. R_D, R_N: the paper's R_D* and R_N*.
    A law of saturation: runs whose loss rises as they repeat are outside of it.
    """

    name = "data_constrained"
    source = "Muennighoff et al. 2023, eq. 5 and 6"
    columns = ("params", "tokens", "unique_tokens")
    parameters = (
        positive("E", 0.2, 3),
        positive("A", 10, 1e5),
        positive("B", 10, 1e5),
        positive("alpha", 0.15, 0.8),
        positive("beta", 0.15, 0.8),
        positive("R_D", 1, 100),
        positive("R_N", 1, 100),
    )

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        unique = np.minimum(x["unique_tokens"], x["tokens"])
        tokens = unique * (1 + saturating(x["tokens"] / unique - 1, p.R_D))
        log_g = (np.log(p.alpha * p.A) - np.log(p.beta * p.B)) / (p.alpha + p.beta)
        fitting = np.exp(log_g + (log_g + np.log(unique)) * p.beta / p.alpha)
        # A choice by the real part: the derivative, which is the imaginary one, stays that of the branch taken.
        base = np.where(np.real(fitting) < x["params"], fitting, x["params"])
        size = base * (1 + saturating(x["params"] / base - 1, p.R_N))
        return p.E + p.A * np.exp(-p.alpha * np.log(size)) + p.B * np.exp(-p.beta * np.log(tokens))

    def slopes(self, theta: np.ndarray, x: Columns) -> tuple[np.ndarray, np.ndarray]:
        """As the general ones, without complex numbers."""
        floor, a, b, alpha, beta, r_d, r_n = np.exp(theta).T[..., None]
        unique = np.minimum(x["unique_tokens"], x["tokens"])
        seen = x["tokens"] / unique - 1
        worth = 1 + saturating(seen, r_d)
        both, ratio = alpha + beta, beta / alpha
        log_g = (theta[:, 1:2] + theta[:, 3:4] - theta[:, 2:3] - theta[:, 4:5]) / both
        reach = (log_g + np.log(unique)) * ratio
        base = np.minimum(np.exp(log_g + reach), x["params"])
        excess = x["params"] / base - 1
        size = base * (1 + saturating(excess, r_n))
        of_size, of_tokens = a * np.exp(-alpha * np.log(size)), b * np.exp(-beta * np.log(unique * worth))
        # by the logarithm of the base: 0 where the base is the size itself
        by_base = -alpha * of_size * base / size * (1 + saturating(excess, r_n) - (1 + excess) * np.exp(-excess / r_n))
        by_g = by_base * (1 + ratio) / both
        slopes = np.empty((*theta.shape, len(seen)))
        slopes[:, 0], slopes[:, 1], slopes[:, 2] = floor, of_size + by_g, of_tokens - by_g
        slopes[:, 3] = -alpha * np.log(size) * of_size + by_g * (1 - alpha * log_g) - by_base * reach
        slopes[:, 4] = -beta * np.log(unique * worth) * of_tokens - by_g * (1 + beta * log_g) + by_base * reach
        slopes[:, 5] = -beta * of_tokens / worth * r_d * saturation(seen / r_d)
        slopes[:, 6] = -alpha * of_size / size * base * r_n * saturation(excess / r_n)
        return floor + of_size + of_tokens, slopes

    def caution(self, x: Columns) -> list[str]:
        most = float(np.max(x["tokens"] / x["unique_tokens"]))
        if most < REPEATED:
            return [
                f"No run sees its tokens more than {most:.3g} times: R_D is a guess, where repeating stops to help."
            ]
        return []

    def derived(self, p: Mapping[str, float]) -> dict[str, float]:
        return allocation(p)


def saturating(repeats: Any, most: Any) -> Any:
    """What `repeats` are worth in first times: `repeats` while they are few, never more than `most`."""
    return -most * np.expm1(-repeats / most)


def saturation(share: np.ndarray) -> np.ndarray:
    """The derivative of `saturating` by `most`, for repeats / most."""
    return -np.expm1(-share) - share * np.exp(-share)
