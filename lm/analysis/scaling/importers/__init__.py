"""Tables of runs from files: published ones, those of other tools, and our own results. All give a RunTable."""

from lm.analysis.scaling.importers.bigbench import read_bigbench
from lm.analysis.scaling.importers.csv import read_csv
from lm.analysis.scaling.importers.guess import guess_columns, in_words
from lm.analysis.scaling.importers.lm_eval import read_lm_eval
from lm.analysis.scaling.importers.results import read_curves, read_results
from lm.analysis.scaling.importers.wandb import read_wandb

__all__ = [
    "guess_columns",
    "in_words",
    "read_bigbench",
    "read_csv",
    "read_curves",
    "read_lm_eval",
    "read_results",
    "read_wandb",
]
