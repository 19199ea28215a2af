"""From which size on do examples in the context help? Labels that are usual or the row's own, shown or not.

    lm sweep run experiments/emergence/icl_fewshot.py
    lm sweep run experiments/emergence/icl_fewshot.py --preset smoke

15 runs, 4 minutes on shared cores. Found: without examples every size is as good as can be (0.63). Examples in the
context add nothing at 308 parameters, 0.08 at 872, 0.33 at 2,768 and 0.35 to 0.37 from 9,632 on, where accuracy is
0.95 to 1.00: means over three seeds.
"""

from experiments.base import small_on_task
from lm.config import replace
from lm.data.synthetic import FewShot
from lm.evals import Kinds
from lm.nn import Block, mha
from lm.sweep import Advantage, Emergence, Panel, Reaches, at_widths

task = FewShot(classes=16, labels=4, ways=4, shots=8, usual=0.5, bare=0.25)

base = replace(
    small_on_task(task, Kinds(examples=1024), steps=1000),
    {
        "data.heldout": 0.0,
        "data.test": 1024,
        "model.block": Block(mixer=mha(2), ff=None),
        "model.position": None,
        "model.embed_std": None,
    },
)

experiment = Emergence(
    base=base,
    arms={"2 layers": {}},
    sizes=at_widths(base, (4, 8, 16, 32, 64)),
    over="params",
    panels=(
        Panel(
            title="accuracy",
            metrics=("kinds.accuracy_bare", "kinds.accuracy_shown"),
            levels={"best without examples": task.best_bare, "guessing": 1 / task.labels},
        ),
        Panel(title="loss", metrics=("kinds.loss_bare", "kinds.loss_shown")),
    ),
    claims=(
        Advantage(
            expected="examples in the context help above a size and not below (Brown et al. 2020)",
            of=("2 layers", "kinds.accuracy_shown"),
            over=("2 layers", "kinds.accuracy_bare"),
            margin=0.1,
        ),
        Reaches(
            expected="with examples the largest model is nearly always right",
            series="2 layers",
            metric="kinds.accuracy_shown",
            level=0.95,
        ),
    ),
)

presets = {
    "smoke": {
        "base.train.steps": 60,
        "base.record.evaluations": 1,
        "sizes": at_widths(base, (8, 16)),
        "seeds": 2,
    }
}
