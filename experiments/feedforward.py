"""Is a gate worth its parameters? Plain and gated feed-forward layers of equal size.

    lm sweep run experiments/feedforward.py
    lm sweep run experiments/feedforward.py --preset smoke

28 runs, an estimated 4 minutes each on two CPU cores (as in attention_ablation).
Not run in full yet: there is no result to show.
"""

from experiments.base import small_decoder, smoke
from lm.nn import GELU, MLP, ReLU, SquaredReLU, geglu, glu, reglu, swiglu
from lm.sweep import Ablation

experiment = Ablation(
    base=small_decoder(),
    at="model.block.ff",
    arms={
        "GELU": MLP(hidden=512, activation=GELU()),
        "ReLU": MLP(hidden=512, activation=ReLU()),
        "ReLU^2": MLP(hidden=512, activation=SquaredReLU()),
        "GLU": glu(344),
        "ReGLU": reglu(344),
        "GEGLU": geglu(344),
        "SwiGLU": swiglu(344),
    },
    match="params",  # three matrices of 2/3 the width against two
    multiple=2,
    seeds=4,
)

presets = {"smoke": smoke()}
