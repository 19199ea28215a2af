"""Experiments, their manifests and their results."""

from lm.sweep.estimate import flops_of
from lm.sweep.experiment import Ablation, Experiment, Planned, Sweep
from lm.sweep.ladder import Ladder, Rung, planned_ladder, rungs
from lm.sweep.noise import SeedNoise
from lm.sweep.points import chain, cross, grid, prefix, sample, zipped
from lm.sweep.search import TPE, Hyperband, Median, Random, Search, SuccessiveHalving
from lm.sweep.space import choice, integers, log_uniform, uniform
from lm.sweep.store import curves, query, results
from lm.sweep.transfer import LRTransfer

__all__ = [
    "TPE",
    "Ablation",
    "Experiment",
    "Hyperband",
    "LRTransfer",
    "Ladder",
    "Median",
    "Planned",
    "Random",
    "Rung",
    "Search",
    "SeedNoise",
    "SuccessiveHalving",
    "Sweep",
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
