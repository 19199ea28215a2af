"""Searches whose trials are formulas, so that hundreds of them take no time."""

import math

from lm.config import replace
from lm.models import Decoder
from lm.nn import MLP, Block, mha, mqa
from lm.sweep import TPE, Hyperband, Median, Random, Search, SuccessiveHalving, choice, log_uniform, uniform
from lm.sweep.study import Study, state_of
from lm.sweep.trials import search
from lm.train import Run, Training
from lm.train.lane import Pruned

STEPS = (1, 2, 4, 8)  # at which a toy is evaluated, before it ends at 16
LR, CLIP, MIXER, WIDTH = "train.optimizer.learning_rate", "train.clip", "model.block.mixer", "model.width"
SPACE = {LR: log_uniform(1e-4, 1e-1), CLIP: uniform(0.5, 2.0), MIXER: choice(mha(4), mqa(4))}
ALGORITHMS = {
    "random": Random(),
    "TPE": TPE(startup=3),
    "TPE, median": TPE(startup=3, pruner=Median(startup=2)),
    "random, halving": Random(pruner=SuccessiveHalving(first=1, factor=2)),
    "TPE, hyperband": TPE(startup=3, pruner=Hyperband(first=1, factor=2)),
}
KILLED = {
    "TPE, median": TPE(startup=1, pruner=Median(startup=1)),
    "TPE, halving": TPE(startup=1, pruner=SuccessiveHalving(first=1, factor=2)),
}


def tiny(**changes) -> Run:
    model = Decoder(vocab=256, width=16, layers=1, block=Block(mixer=mha(4), ff=MLP(hidden=16)))
    return replace(Run(model=model, train=Training(steps=16)), changes)


def toy(algorithm=ALGORITHMS["TPE, median"], trials=8, **more) -> Search:
    return Search(base=tiny(), space=SPACE, trials=trials, algorithm=algorithm, **more)


def height(point, step: int) -> float:
    """A valley over the space, seen better the later."""
    rate = math.log10(point[LR])
    return (rate + 2.5) ** 2 + abs(point[CLIP] - 1) / 4 + (point[MIXER] == mqa(4)) / 4 + math.sin(9 * rate) / step


def climb(trial) -> float:
    for step in STEPS:
        if trial.judge(step, height(trial.point, step)):
            raise Pruned(f"pruned at step {step}")
    return height(trial.point, 16)


def silent(study: Study, objective=climb, **options):
    return search(study, objective, say=lambda _: None, **options)


def kept(study: Study):
    """All that a search leaves."""
    return [(t.params, state_of(t), t.values, t.intermediate_values) for t in study.trials()]


class Kill(BaseException):
    """What no process survives."""
