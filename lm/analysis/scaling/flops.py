"""Training FLOPs by formulas that have names, since laws fitted on one can't be read with another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from lm.analysis.tables import TableError

Formula = Literal["6ND", "+head", "+attention", "exact", "unknown"]


def training_flops(formula: Formula, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """FLOPs of whole runs, forward and backward.

    6ND: 6 * params * tokens (Kaplan et al. 2020, section 2.1), with whatever `params` counts. +head: the same over
    the parameters that take part in products, `params_non_embedding`, and the output head, `width * vocab`.
    +attention: that and the scores, 6 * tokens * layers * context * width with half of the pairs masked (12 without;
    Chowdhery et al. 2022, appendix B, halved). exact: what the table says in `flops`.
    Raises TableError where a column isn't there.
    """

    def of(name: str) -> np.ndarray:
        if name not in columns:
            raise TableError(f"FLOPs by '{formula}' need the column '{name}', which the runs haven't")
        return np.asarray(columns[name], float)

    if formula in ("exact", "unknown"):
        return of("flops")
    if formula == "6ND":
        return 6 * of("params") * of("tokens")
    head = 6 * of("tokens") * (of("params_non_embedding") + of("width") * of("vocab"))
    if formula == "+head":
        return head
    if formula == "+attention":
        return head + 6 * of("tokens") * of("layers") * of("context") * of("width")
    raise TableError(f"there is no FLOP formula '{formula}'; there are 6ND, +head, +attention, exact")
