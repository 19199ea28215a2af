"""Can the learning rate be tuned on a narrow model? Its optimum over width, with and without muP.

    lm sweep run experiments/lr_transfer.py
    lm sweep run experiments/lr_transfer.py --preset smoke

112 runs, about 35 minutes on two CPU cores that did other work as well. Found: from width 32 to 256 the best rate moves
by 3.37 [-2.59, 9.33] steps of a factor 2 under the standard parametrisation (0.0201 to 0.00195; keeping the narrow
model's costs the widest 0.31 nats) and by 0.06 [-3.60, 3.71] under muP (0.0201 to 0.0193; at no cost). At width 256 the
best loss is 1.933 and 1.820. The intervals are of two seeds, which is one degree of freedom.
"""

from experiments.base import small_decoder, smoke
from lm.config import replace
from lm.models import Decoder
from lm.nn import Block, mha, swiglu
from lm.sweep import LRTransfer

experiment = LRTransfer(
    base=replace(
        small_decoder(),
        {
            "model": Decoder(vocab=256, width=64, layers=2, block=Block(mixer=mha(4), ff=swiglu(176))),
            "data.length": 128,
            "train.steps": 150,
            "train.schedule.warmup": 15,
        },
    ),
    widths=(32, 64, 128, 256),
    rates=tuple(2.0**-k for k in range(10, 3, -1)),
    seeds=2,
)

presets = {"smoke": smoke(seeds=1, widths=(32, 64), rates=(2.0**-8, 2.0**-6, 2.0**-4))}
