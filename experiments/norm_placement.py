"""Where do the norms belong? Before, after and around the parts of a block, and parts side by side.

    lm sweep run experiments/norm_placement.py
    lm sweep run experiments/norm_placement.py --preset smoke

20 runs, an estimated 4 minutes each on two CPU cores (as in attention_ablation).
Not run in full yet: there is no result to show.
"""

from experiments.base import small_decoder, smoke
from lm.nn import Parallel, PostNorm, PreNorm, Sandwich, SharedParallel
from lm.sweep import Ablation

FORM, FINAL = "model.block.residual", "model.norm"

experiment = Ablation(
    base=small_decoder(),
    arms={
        "pre": {FORM: PreNorm()},
        "post": {FORM: PostNorm(), FINAL: None},  # its last block ends in a norm already
        "sandwich": {FORM: Sandwich()},
        "parallel": {FORM: Parallel()},
        "parallel, one norm": {FORM: SharedParallel()},
    },
    seeds=4,
)

presets = {"smoke": smoke()}
