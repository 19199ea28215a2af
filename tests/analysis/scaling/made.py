"""Runs made from a known law."""

import numpy as np
import pandas as pd

from lm.analysis.scaling import RunTable, table

TRUE = {"E": 1.7, "A": 400.0, "B": 1000.0, "alpha": 0.35, "beta": 0.37}


def law(params, tokens, p=TRUE):
    return p["E"] + p["A"] * params ** -p["alpha"] + p["B"] * tokens ** -p["beta"]


def runs(noise=0.0, seed=0, p=TRUE, sizes=7, budgets=(1e18, 4e18, 1.6e19, 6.4e19, 2.56e20)) -> RunTable:
    """At each budget sizes around the best, with noise on the logarithm of the loss."""
    rng = np.random.default_rng(seed)
    rows = []
    for budget in budgets:
        best = optimum(budget, p)
        for size in best * np.geomspace(1 / 6, 6, sizes):
            tokens = budget / (6 * size)
            loss = law(size, tokens, p) * np.exp(noise * rng.standard_normal())
            rows.append({"params": size, "tokens": tokens, "flops": budget, "loss": loss})
    return table(pd.DataFrame(rows))


def optimum(flops, p=TRUE):
    """The best size in closed form: Hoffmann et al. 2022, eq. 4."""
    a, b = p["alpha"], p["beta"]
    return (a * p["A"] / (b * p["B"])) ** (1 / (a + b)) * (flops / 6) ** (b / (a + b))
