"""Does a scaling law find the entropy of its data? A ladder on text from a source whose entropy is known exactly.

    lm sweep run experiments/scaling_entropy.py
    lm sweep run experiments/scaling_entropy.py --preset smoke

20 runs, 19 minutes on one of two busy cores. The source has 1.6321 nats a token. Found: E = 1.586 [1.526, 1.636], so
the truth lies inside the interval, near its upper end; the best run has 1.683. The law misses runs by 1.5% on average,
and what was foretold of the largest budget is 2.7% too low: this text isn't learned by a pure power law. One seed.
"""

from experiments.base import small_decoder
from lm.config import replace
from lm.data.synthetic import Markov
from lm.models import Decoder
from lm.nn import Block, mha, swiglu
from lm.sweep import Ladder, rungs
from lm.train import mup

source = Markov(symbols=32, order=2, concentration=4.0, documents_count=100_000, length=63)

base = mup(
    replace(
        small_decoder(),
        {
            "model": Decoder(vocab=256, width=64, layers=2, block=Block(mixer=mha(8), ff=swiglu(176))),
            "data.corpus": source,
            "data.length": source.length + 1,  # a row is a document
            "data.batch": 32,
            "data.heldout": 0.02,
            "train.steps": 100,
            "train.schedule.warmup": 10,
            "train.optimizer.learning_rate": 2.0**-6,
            "record.evaluations": 0,
        },
    ),
    base_width=32,
)

experiment = Ladder(
    base=base,
    rungs=rungs(base, (16, 24, 32, 48, 64, 96, 128), [1e11 * 3**k for k in range(4)], ratio=(1, 600)),
    floor=source.entropy(),
)

presets = {
    "smoke": {
        "base.data.corpus.documents_count": 4000,
        "rungs": rungs(base, (16, 32, 48), [3e9, 6e9, 1.2e10], ratio=(0.1, 1000)),
    }
}
