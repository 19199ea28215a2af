"""Do experts pay? A dense model and four mixtures of experts with equal active parameters, and equal FLOPs.

    lm sweep run experiments/moe.py
    lm sweep run experiments/moe.py --preset smoke

15 runs, 40 minutes by two workers that had about a third of a core each. Found: with two or more experts a token, all
nine runs are better than the dense one of their seed, which three seeds don't quite resolve; one expert a token shows
no gain. Held-out loss (nats a byte) dense 1.3724; top-1 of 8 +0.0009 [-0.0411, 0.0429], top-2 of 16 -0.0470 [-0.0726,
-0.0214], top-4 of 32 -0.0485 [-0.0790, -0.0181], top-3 of 31 and a shared one -0.0531 [-0.0847, -0.0214], the last
three with p = 0.063 each, corrected for four comparisons. The fullest expert has 1.35 to 1.53 times its share in the
last quarter of training; nothing is dropped. All arms have one learning rate.
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
        "Switch: top-1 of 8": experts(8, HIDDEN, chosen=1),
        "top-2 of 16": experts(16, HIDDEN // 2, chosen=2),
        "fine: top-4 of 32": experts(32, HIDDEN // 4, chosen=4),
        "fine: 1 + top-3 of 31": experts(31, HIDDEN // 4, chosen=3, shared=HIDDEN // 4),
    },
    match="active",  # what the routers take, the experts give
    adjust="model.block.ff.expert.hidden",
    multiple=1,
    seeds=3,
)

presets = {"smoke": smoke()}
