"""Do experts pay? A dense model and four mixtures of experts with equal active parameters, and equal FLOPs.

    lm sweep run experiments/moe.py
    lm sweep run experiments/moe.py --preset smoke

15 runs.
"""

from experiments.base import smoke, tiny_decoder
from lm.config import replace
from lm.nn import MoE, SoftmaxTopK, swiglu, switch
from lm.sweep import Ablation

HIDDEN = 176  # of the dense layer; every mixture has about eight times as much, and uses an eighth of it


def experts(count: int, each: int, chosen: int, shared: int | None = None) -> MoE:
    return MoE(
        expert=swiglu(each),
        experts=count,
        routing=switch() if chosen == 1 else SoftmaxTopK(k=chosen),
        shared=None if shared is None else swiglu(shared),
    )


experiment = Ablation(
    base=replace(tiny_decoder(), {"train.steps": 800}),
    at="model.block.ff",
    arms={
        "dense": swiglu(HIDDEN),
        "top-1 of 8 (Switch)": experts(8, HIDDEN, chosen=1),
        "top-2 of 16": experts(16, HIDDEN // 2, chosen=2),
        "top-4 of 32 (fine-grained)": experts(32, HIDDEN // 4, chosen=4),
        "top-3 of 31, 1 shared": experts(31, HIDDEN // 4, chosen=3, shared=HIDDEN // 4),
    },
    match="active",  # what the routers take, the experts give
    adjust="model.block.ff.expert.hidden",
    multiple=1,
    seeds=3,
)

presets = {"smoke": smoke()}
