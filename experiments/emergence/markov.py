"""In which order are statistics learned in context? Markov chains, a new one in every row: uniform, unigram, bigram.

    lm sweep run experiments/emergence/markov.py
    lm sweep run experiments/emergence/markov.py --preset smoke

6 runs, 40 seconds each on a shared core. Found, with two layers, in all three seeds: the loss starts at that of four
equal symbols, stays within 0.02 nats of in-context unigrams from step 91-102 to 203-287, and ends 0.004 nats above
the Bayes bigram predictor (0.907 against 0.903), which it never beats (least difference +0.0024). One layer stops at
0.998.
"""

from experiments.base import small_on_task
from lm.config import replace
from lm.data.synthetic import MarkovChains
from lm.evals import Positions
from lm.nn import Block, mha
from lm.sweep import Dwells, Emergence, Near, NeverBelow, Panel

task = MarkovChains(states=3, length=64)
GOLDS = ("positions.uniform", "positions.unigram", "positions.bigram")

experiment = Emergence(
    base=replace(
        small_on_task(task, Positions(examples=512), steps=3000, batch=32, attention_only=True),
        {
            "model.width": 32,
            "model.block": Block(mixer=mha(2)),
            "model.position": None,
            "train.optimizer.learning_rate": 1e-3,
            "data.test": 1024,
            "record.evaluations": 6,
        },
    ),
    arms={"2 layers": {}, "1 layer": {"model.layers": 1}},
    panels=(Panel(title="loss in context (nats a symbol)", metrics=("positions.loss",), golds=GOLDS),),
    claims=(
        Dwells(
            expected="first in-context unigrams: the loss stays a while near theirs (Edelman et al. 2024)",
            series="2 layers",
            metric="positions.loss",
            gold="positions.unigram",
            tolerance=0.02,
        ),
        Near(
            expected="then bigrams: the loss ends near that of Bayes",
            series="2 layers",
            metric="positions.loss",
            gold="positions.bigram",
            tolerance=0.02,
        ),
        NeverBelow(
            expected="never better than Bayes",
            series="2 layers",
            metric="positions.loss",
            gold="positions.bigram",
            slack=0.001,
        ),
    ),
    profile="positions",
)

presets = {"smoke": {"base.train.steps": 60, "base.record.evaluations": 2, "seeds": 2}}
