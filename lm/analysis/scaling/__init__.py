"""Scaling laws: fits with honest intervals, on our own runs and on published tables. Needs no JAX.

from lm.analysis import scaling
runs = scaling.read_csv(path, params="Model Size", flops="Training FLOP", loss="loss")
fit = scaling.fit(runs, law="chinchilla")
fit.bootstrap(n=1000).interval(lambda f: f.optimum(1e24).params)
"""

from lm.analysis.scaling.bootstrap import Bootstrap, bootstrap
from lm.analysis.scaling.breaks import choose_breaks
from lm.analysis.scaling.compare import LawComparison, compare_laws
from lm.analysis.scaling.design import Design, design, grid_error
from lm.analysis.scaling.envelope import Envelope, envelope
from lm.analysis.scaling.fitting import Fit, fit
from lm.analysis.scaling.flops import training_flops
from lm.analysis.scaling.frontier import Multiplier, bands, frontier, multiplier
from lm.analysis.scaling.holdout import Holdout, holdout, leave_largest_out, leave_one_budget_out, rolling
from lm.analysis.scaling.importers.bigbench import read_bigbench
from lm.analysis.scaling.importers.csv import read_csv
from lm.analysis.scaling.importers.guess import guess_columns
from lm.analysis.scaling.importers.lm_eval import read_lm_eval
from lm.analysis.scaling.importers.results import read_curves, read_results
from lm.analysis.scaling.importers.wandb import read_wandb
from lm.analysis.scaling.isoflop import IsoFLOP, isoflop
from lm.analysis.scaling.law import Law, Parameter, positive, real
from lm.analysis.scaling.laws import LAWS
from lm.analysis.scaling.objective import Objective
from lm.analysis.scaling.optimum import Optimum, budget_for, cost_of, optimum
from lm.analysis.scaling.report import findings, scaling_report
from lm.analysis.scaling.runs import RunTable, table
from lm.analysis.scaling.two_step import TwoStep, two_step
from lm.analysis.scaling.uncertainty import Profile, covariance, profile, unidentified

__all__ = [
    "LAWS", "Bootstrap", "Design", "Envelope", "Fit", "Holdout", "IsoFLOP", "Law", "LawComparison", "Multiplier",
    "Objective", "Optimum", "Parameter", "Profile", "RunTable", "TwoStep", "bands", "bootstrap", "budget_for",
    "choose_breaks", "compare_laws",
    "cost_of", "covariance", "design", "envelope", "findings", "fit", "frontier", "grid_error", "guess_columns",
    "holdout", "isoflop", "leave_largest_out", "leave_one_budget_out", "multiplier", "optimum", "positive", "profile",
    "read_bigbench", "read_csv", "read_curves", "read_lm_eval", "read_results", "read_wandb", "real", "rolling",
    "scaling_report", "table", "training_flops", "two_step", "unidentified",
]  # fmt: skip
