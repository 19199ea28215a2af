"""Training: one run as a value, the compiled step and the loop around it."""

from lm.train.optimizers import Adafactor, AdamW, Lion, Muon, Optimizer
from lm.train.parametrization import MuP, Standard, mup
from lm.train.run import Recording, Run, Training
from lm.train.schedules import WSD, Constant, Cosine, InverseSqrt, Linear, Schedule

__all__ = [
    "WSD", "Adafactor", "AdamW", "Constant", "Cosine", "InverseSqrt", "Linear", "Lion", "MuP", "Muon", "Optimizer",
    "Recording", "Run", "Schedule", "Standard", "Training", "mup",
]  # fmt: skip
