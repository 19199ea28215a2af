"""Experiments, their manifests and their results."""

from lm.sweep.experiment import Ablation, Experiment, Planned, Sweep
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
    "Median",
    "Planned",
    "Random",
    "Search",
    "SeedNoise",
    "SuccessiveHalving",
    "Sweep",
    "chain",
    "choice",
    "cross",
    "curves",
    "grid",
    "integers",
    "log_uniform",
    "prefix",
    "query",
    "results",
    "sample",
    "uniform",
    "zipped",
]
