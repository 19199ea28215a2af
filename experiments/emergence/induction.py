"""Do induction heads appear at once? Attention alone on repeated random sequences: two layers against one.

    lm sweep run experiments/emergence/induction.py
    lm sweep run experiments/emergence/induction.py --preset smoke

6 runs, 7 minutes on a shared core. Found, in all three seeds: with two layers the loss where the sequence repeats
falls from 3 to 0.5 nats while training grows 1.41 times and is below 0.1 at step 575-645; the best head's prefix
matching is half-way at step 406-456 (the loss: 362) and ends at 0.94. With one layer it never passes 0.10, and the
loss ends at 2.48.
"""

import math

from experiments.base import small_on_task
from lm.config import replace
from lm.data.synthetic import RepeatedSequence
from lm.evals import Positions
from lm.interpret import Heads
from lm.sweep import Emergence, Never, Panel, Reaches, Takes, Together

task = RepeatedSequence(alphabet=64, length=64, shortest=8, longest=24)

experiment = Emergence(
    base=replace(
        small_on_task(task, Heads(length=16), Positions(), steps=2000, batch=32, attention_only=True),
        {"model.embed_std": None, "train.optimizer.learning_rate": 1e-3, "record.evaluations": 6},
    ),
    arms={"2 layers": {}, "1 layer": {"model.layers": 1}},
    panels=(
        Panel(title="loss where the sequence repeats", metrics=("heldout.loss",), levels={"ln 64": math.log(64)}),
        Panel(title="prefix matching, best head", metrics=("heads.prefix_matching",)),
        Panel(title="attention to the token before, best head", metrics=("heads.previous_token",)),
        Panel(title="loss late minus early in the row", metrics=("positions.context_gain",)),
        Panel(title="entropy of attention", metrics=("heads.entropy",)),
    ),
    claims=(
        Reaches(
            expected="with two layers the loss falls from ln V nearly to 0",
            series="2 layers",
            metric="heldout.loss",
            level=0.1,
            rising=False,
        ),
        Takes(expected="... abruptly", series="2 layers", metrics="heldout.loss", start=3.0, end=0.5, most=2.0),
        Reaches(expected="a head matches prefixes", series="2 layers", metric="heads.prefix_matching", level=0.8),
        Together(
            expected="... at the same steps (Olsson et al. 2022)",
            series="2 layers",
            metrics=("heldout.loss", "heads.prefix_matching"),
            factor=1.5,
        ),
        Never(
            expected="with one layer no head does, ever", series="1 layer", metric="heads.prefix_matching", level=0.8
        ),
        Never(expected="... and the loss stays high", series="1 layer", metric="heldout.loss", level=1.0, rising=False),
    ),
)

presets = {"smoke": {"base.train.steps": 60, "base.record.evaluations": 2, "seeds": 2}}
