"""Published tables of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lm.analysis.scaling.flops import Formula
from lm.analysis.scaling.importers.columns import runs
from lm.analysis.scaling.importers.files import cells
from lm.analysis.scaling.runs import RunTable


def read_csv(
    path: str | Path,
    *,
    params: str | None = None,
    flops: str | None = None,
    tokens: str | None = None,
    loss: str | Sequence[str] | None = None,
    formula: Formula = "6ND",
    **more: str,
) -> RunTable:
    """Runs from a CSV file with headings. Each argument says which of its columns is ours; `more` does for other names.

        read_csv(path, params="Model Size", flops="Training FLOP", loss="loss", model="Name")

    Columns that aren't named are kept under their own headings. A unit that ends a heading, as in "Model Size (B)" or
    "FLOPs (1e21)", is multiplied in. Several losses (`loss=["c4", "wiki"]`) give a row each, with the heading in the
    column `evaluation`. Tokens that the file lacks are flops / (6 params). formula: how its FLOPs were counted.
    Raises TableError for a column that isn't there, one of our names for two columns, text where a number belongs,
    sizes that aren't positive, FLOPs that aren't by the formula 6ND when that is said, and an empty file.
    """
    return runs(cells(path), {"params": params, "flops": flops, "tokens": tokens, **more}, loss, formula, path)
