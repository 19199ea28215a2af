"""Is a smooth loss a staircase of small discoveries? Eight parities, unequally frequent, learned by one model.

    lm sweep run experiments/emergence/parity.py
    lm sweep run experiments/emergence/parity.py --preset smoke

3 runs, 9 minutes on shared cores. Found: 7, 5 and 8 of the eight parities are learned in 4,000 steps, the last 11 to
48 times later than the first. Each goes from 75% to 95% while training grows 1.19 times (median; one took 4.36 times,
4 of 24 never got there), and the loss over all takes 10 to 27 times longer to fall from 0.65 to 0.05 nats (in one of
three seeds it doesn't get there).
"""

from experiments.base import small_on_task
from lm.config import replace
from lm.data.synthetic import SparseParity
from lm.evals import Kinds
from lm.sweep import Emergence, Panel, Staircase, Takes

task = SparseParity(tasks=8, bits=12, subset=2, skew=0.5)

experiment = Emergence(
    base=replace(
        small_on_task(task, Kinds(examples=2048), steps=4000, batch=128),
        {"model.layers": 1, "train.optimizer.learning_rate": 2e-3, "data.test": 2048, "record.evaluations": 8},
    ),
    arms={"8 parities": {}},
    panels=(
        Panel(title="accuracy of each parity", metrics=("kinds.accuracy_*",), levels={"chance": 0.5}),
        Panel(title="loss of each parity", metrics=("kinds.loss_*",)),
        Panel(title="loss over all", metrics=("heldout.loss",)),
    ),
    claims=(
        Staircase(
            expected="the parities are learned one after another (Michaud et al. 2023)",
            series="8 parities",
            metrics="kinds.accuracy_*",
            level=0.95,
            count=7,
        ),
        Takes(
            expected="... each all at once",
            series="8 parities",
            metrics="kinds.accuracy_*",
            start=0.75,
            end=0.95,
            most=2.0,
        ),
        Takes(
            expected="while the mean loss takes its time",
            series="8 parities",
            metrics="heldout.loss",
            start=0.65,
            end=0.05,
            least=3.0,
        ),
    ),
)

presets = {"smoke": {"base.train.steps": 80, "base.record.evaluations": 2, "base.data.batch": 32, "seeds": 2}}
