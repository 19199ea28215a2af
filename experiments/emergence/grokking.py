"""Does a network memorise first and understand later? Modular addition: accuracy in training and on held-out sums.

    lm sweep run experiments/emergence/grokking.py
    lm sweep run experiments/emergence/grokking.py --preset smoke

12 runs, 28 minutes on shared cores (9 of them as one program). 35% of the 3,481 sums are trained on. Found: with
weight decay 1 training accuracy passes 99% at step 1,010-1,750 and held-out accuracy 2.55 and 4.79 times later, at
2,580 and 5,793, in two of three seeds; the third is at 29% after 10,000 steps. With weight decay 2 there is hardly a
delay (1.14 and 1.64 times; the third seed stays at 94%), with 0.3 (0.36-0.46) and 0 (0.29-0.33) nobody generalises in
the budget. The embedding's power gathers in five frequencies (0.95) where, and about when, it does: not in step in
every seed.
"""

from lm.data import TaskData
from lm.data.synthetic import ModularArithmetic
from lm.interpret import Fourier
from lm.models import Decoder
from lm.nn import MLP, Block, Learned, ReLU, mha
from lm.sweep import Delayed, Emergence, Never, Panel, Together
from lm.train import AdamW, Constant, Recording, Run, Training

task = ModularArithmetic(modulus=59)

base = Run(
    # one layer without norms, as in Nanda et al. 2023
    model=Decoder(
        vocab=task.vocab,
        width=64,
        layers=1,
        block=Block(mixer=mha(4, position=None), ff=MLP(hidden=256, activation=ReLU()), norm=None),
        position=Learned(length=task.length),
        norm=None,
        tied=False,
    ),
    data=TaskData(task=task, batch=256, heldout=0.65, test=1024),
    train=Training(
        steps=10000, optimizer=AdamW(learning_rate=2e-3, weight_decay=1.0, b2=0.98), schedule=Constant(warmup=10)
    ),
    record=Recording(every=10, evaluations=6, measures=(Fourier(),)),
)

experiment = Emergence(
    base=base,
    arms={f"weight decay {decay:g}": {"train.optimizer.weight_decay": decay} for decay in (2.0, 1.0, 0.3, 0.0)},
    panels=(
        Panel(title="accuracy in training", metrics=("train.accuracy",)),
        Panel(title="held-out accuracy", metrics=("heldout.accuracy",), levels={"chance": 1 / 59}),
        Panel(title="power in the 5 strongest frequencies", metrics=("fourier.concentration",)),
        Panel(title="held-out loss", metrics=("heldout.loss",), log=True),
        Panel(title="size of the weights", metrics=("train.parameter_norm",)),
    ),
    claims=(
        Delayed(
            expected="training accuracy passes 99% long before held-out accuracy does (Power et al. 2022)",
            series="weight decay 2",
            early="train.accuracy",
            late="heldout.accuracy",
            level=0.99,
        ),
        Delayed(
            expected="with half the weight decay, too, and later",
            series="weight decay 1",
            early="train.accuracy",
            late="heldout.accuracy",
            level=0.99,
        ),
        Never(
            expected="not with little weight decay, in the budget",
            series="weight decay 0.3",
            metric="heldout.accuracy",
            level=0.99,
        ),
        Never(
            expected="never without weight decay, in the budget",
            series="weight decay 0",
            metric="heldout.accuracy",
            level=0.99,
        ),
        Together(
            expected="the embedding turns into few frequencies while it generalises (Nanda et al. 2023)",
            series="weight decay 2",
            metrics=("heldout.accuracy", "fourier.concentration"),
        ),
    ),
)

presets = {"smoke": {"base.train.steps": 200, "base.record.evaluations": 2, "seeds": 2}}
