"""Does a scaling law find the entropy of its data? A ladder on text from a source whose entropy is known exactly.

    lm sweep run experiments/scaling_entropy.py
    lm sweep run experiments/scaling_entropy.py --preset smoke

20 runs, 19 minutes on one of two busy cores. The source has 1.6321 nats a token. Found: E = 1.586 [1.526, 1.636], so
the truth lies inside the interval, near its upper end; the best run has 1.683. The law misses runs by 1.5% on average,
and what was foretold of the largest budget is 2.7% too low: this text isn't learned by a pure power law. One seed.
"""

from experiments.base import ladder_base
from lm.config import replace
from lm.data.synthetic import Markov
from lm.sweep import Ladder, rungs

source = Markov(symbols=32, order=2, concentration=4.0, documents_count=100_000, length=63)

# a row is a document
data = {"data.corpus": source, "data.length": source.length + 1, "data.batch": 32, "data.heldout": 0.02}
base = replace(ladder_base(), data)

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
