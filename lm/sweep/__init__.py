"""Experiments, their manifests and their results."""

from lm.sweep.claims import (
    Above,
    Advantage,
    Claim,
    Delayed,
    Dwells,
    Near,
    Never,
    NeverBelow,
    Reaches,
    Shape,
    Staircase,
    Takes,
    Together,
)
from lm.sweep.emergence import Emergence, Panel, Verdict, at_widths
from lm.sweep.estimate import flops_of
from lm.sweep.experiment import Ablation, Experiment, Planned, Sweep
from lm.sweep.extrapolation import Extrapolation
from lm.sweep.ladder import Ladder, Rung, planned_ladder, rungs
from lm.sweep.noise import SeedNoise
from lm.sweep.points import chain, cross, grid, prefix, sample, zipped
from lm.sweep.published import Published
from lm.sweep.search import TPE, Hyperband, Median, Random, Search, SuccessiveHalving
from lm.sweep.space import choice, integers, log_uniform, uniform
from lm.sweep.store import curves, query, results
from lm.sweep.transfer import LRTransfer

__all__ = [
    "TPE",
    "Ablation",
    "Above",
    "Advantage",
    "Claim",
    "Delayed",
    "Dwells",
    "Emergence",
    "Experiment",
    "Extrapolation",
    "Hyperband",
    "LRTransfer",
    "Ladder",
    "Median",
    "Near",
    "Never",
    "NeverBelow",
    "Panel",
    "Planned",
    "Published",
    "Random",
    "Reaches",
    "Rung",
    "Search",
    "SeedNoise",
    "Shape",
    "Staircase",
    "SuccessiveHalving",
    "Sweep",
    "Takes",
    "Together",
    "Verdict",
    "at_widths",
    "chain",
    "choice",
    "cross",
    "curves",
    "flops_of",
    "grid",
    "integers",
    "log_uniform",
    "planned_ladder",
    "prefix",
    "query",
    "results",
    "rungs",
    "sample",
    "uniform",
    "zipped",
]
