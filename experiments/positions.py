"""How should a small decoder know where a token stands? Seven kinds of position on one base.

    lm sweep run experiments/positions.py
    lm sweep run experiments/positions.py --preset smoke

28 runs, an estimated 4 minutes each on two CPU cores (as in attention_ablation).
Not run in full yet: there is no result to show.
"""

from experiments.base import small_decoder, smoke
from lm.nn import ALiBi, Learned, RoPE, Sinusoidal, T5Bias
from lm.sweep import Ablation

RELATIVE, ABSOLUTE = "model.block.mixer.position", "model.position"

experiment = Ablation(
    base=small_decoder(),
    arms={
        "RoPE": {RELATIVE: RoPE()},
        "RoPE 1/4": {RELATIVE: RoPE(fraction=0.25)},
        "ALiBi": {RELATIVE: ALiBi()},
        "T5 bias": {RELATIVE: T5Bias()},
        "learned": {RELATIVE: None, ABSOLUTE: Learned(length=256)},
        "sinusoidal": {RELATIVE: None, ABSOLUTE: Sinusoidal(scale=0.1)},  # token vectors start at norm 1, not sqrt(D)
        "none": {RELATIVE: None},
    },
    seeds=4,
)

presets = {"smoke": smoke()}
