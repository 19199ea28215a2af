"""How should compute be divided between size and text? A scaling law of byte models on the King James Bible.

    lm sweep run experiments/scaling_text.py
    lm sweep run experiments/scaling_text.py --preset smoke
    lm fit experiments/scaling_text.py

19 runs, 37 minutes on one of two busy cores. Found: L = 0.863 + 77.5 / N^0.550 + 294 / D^0.460; the best size grows as
FLOPs^0.455 [0.398, 0.555], by the parabolas of equal FLOPs as FLOPs^0.581 [0.364, 0.758]; E is 0.863 [0.788, 0.983]
nats a byte. The law of the three smaller budgets misses the four runs of the largest by 1.6% on average, and all four
lie in the 95% interval it gives them. One seed; text is read up to three times at the largest budget.
"""

from experiments.base import ladder_base
from lm.sweep import Ladder, rungs

base = ladder_base()

experiment = Ladder(
    base=base,
    rungs=rungs(base, (16, 24, 32, 48, 64, 96, 128, 192), [8e10 * 4**k for k in range(4)], ratio=(1, 600)),
)

presets = {"smoke": {"rungs": rungs(base, (16, 32, 48), [3e9, 6e9, 1.2e10], ratio=(0.1, 1000))}}
