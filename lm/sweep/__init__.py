"""Experiments, their manifests and their results."""

from lm.sweep.experiment import Ablation, Experiment, Planned, Sweep
from lm.sweep.points import chain, cross, grid, zipped

__all__ = ["Ablation", "Experiment", "Planned", "Sweep", "chain", "cross", "grid", "zipped"]
