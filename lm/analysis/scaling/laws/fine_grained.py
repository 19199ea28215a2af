"""Loss of mixtures of many small experts: Krajewski et al. 2024, "Scaling Laws for Fine-Grained Mixture of Experts"."""

from __future__ import annotations

from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law, positive
from lm.analysis.scaling.laws.chinchilla import one_line


class FineGrained(Law):
    """L(N, D, G) = c + (g / G^gamma + a) / N^alpha + b / D^beta, for one ratio of all to active expert parameters.

    G, `granularity`: how many times smaller an expert is than the dense feed-forward layer; as many times more of
    them meet each token. N: all parameters, embeddings left out in the paper.
    """

    name = "fine_grained"
    source = "Krajewski et al. 2024"
    floor = "c"
    columns = ("params", "tokens", "granularity")
    parameters = (
        positive("c", 0.2, 3, linear=True),
        positive("g", 0.1, 1e4, linear=True),
        positive("a", 1, 1e5, linear=True),
        positive("b", 1, 1e5, linear=True),
        positive("alpha", 0.05, 0.8),
        positive("beta", 0.05, 0.8),
        positive("gamma", 0.1, 3),
    )

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        of_size = p.g * np.exp(-p.gamma * np.log(x["granularity"])) + p.a
        return p.c + of_size * np.exp(-p.alpha * np.log(x["params"])) + p.b * np.exp(-p.beta * np.log(x["tokens"]))

    def caution(self, x: Columns) -> list[str]:
        grains = np.unique(x["granularity"])
        few = [f"Only {len(grains)} granularities: g, gamma and a can't be told apart."] if len(grains) < 3 else []
        return few + one_line(x)
