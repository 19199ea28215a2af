"""Runs planned for machines that aren't here: memory by ahead-of-time compilation, time by a roofline."""

from lm.plan.compile import Compiled, compiled
from lm.plan.memory import Bytes, predicted
from lm.plan.report import Planned, plan, text
from lm.plan.roofline import Estimate, estimate
from lm.plan.step import Step, imagined
from lm.plan.suggest import Choice, choices
from lm.plan.targets import CHIPS, Chip, Target, target

__all__ = [
    "CHIPS",
    "Bytes",
    "Chip",
    "Choice",
    "Compiled",
    "Estimate",
    "Planned",
    "Step",
    "Target",
    "choices",
    "compiled",
    "estimate",
    "imagined",
    "plan",
    "predicted",
    "target",
    "text",
]
