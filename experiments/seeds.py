"""How large is seed noise, and how many seeds does an effect of a given size need?

    lm sweep run experiments/seeds.py
    lm sweep run experiments/seeds.py --preset smoke

62 runs, an estimated 5 minutes on two CPU cores.
Not run in full yet: there is no result to show.
"""

from experiments.base import small_decoder, smoke
from lm.config import replace
from lm.models import Decoder
from lm.nn import Block, mha, mqa, swiglu
from lm.sweep import SeedNoise

experiment = SeedNoise(
    base=replace(
        small_decoder(),
        {
            "model": Decoder(vocab=256, width=64, layers=2, block=Block(mixer=mha(4), ff=swiglu(176))),
            "data.length": 128,
            "train.steps": 150,
            "train.schedule.warmup": 15,
            "train.optimizer.learning_rate": 5e-3,
        },
    ),
    variant={"model.block.mixer": mqa(4)},
    seeds=16,
    crossed=6,
)

presets = {"smoke": smoke(seeds=3, crossed=2)}
