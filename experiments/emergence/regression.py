"""Does a transformer do least squares in its context? Linear regression told as tokens: new weights in every row.

    lm sweep run experiments/emergence/regression.py
    lm sweep run experiments/emergence/regression.py --preset smoke

3 runs, 7 minutes on shared cores. Found: after a plateau at the error of guessing 0 (0.97) to about step 700 the
squared error after 2 d = 4 pairs falls to 0.115 [0.114, 0.123]; least squares has 0.462 there, Bayes (ridge) 0.112,
and the model is never below it (least difference +0.0005). After 6 pairs it is below ridge (0.08 against 0.097),
which doesn't know that values end at 3: with its predictions cut there ridge has 0.071.
"""

from experiments.base import small_on_task
from lm.config import replace
from lm.data.synthetic import LinearRegression
from lm.evals import Estimates
from lm.nn import RoPE
from lm.sweep import Emergence, Near, NeverBelow, Panel, Reaches

task = LinearRegression(dimensions=2, shots=8, codebook=32, noise=0.2, bins=24, limit=3.0)

experiment = Emergence(
    base=replace(
        small_on_task(task, Estimates(examples=1024, at=2 * task.dimensions), steps=4000),
        {
            "model.layers": 3,
            "model.embed_std": None,
            "model.position": None,
            "model.block.mixer.position": RoPE(),
            "train.optimizer.learning_rate": 2e-3,
            "data.test": 1024,
        },
    ),
    arms={"3 layers": {}},
    panels=(
        Panel(
            title="squared error after 2 d pairs",
            metrics=("estimates.model",),
            golds=("estimates.zero", "estimates.least_squares", "estimates.ridge"),
            log=True,
        ),
        Panel(title="squared distance from Bayes after 2 d pairs", metrics=("estimates.distance",), log=True),
        Panel(title="held-out loss", metrics=("heldout.loss",)),
    ),
    claims=(
        Reaches(
            expected="after 2 d pairs the error is at most 0.1 above that of least squares (Garg et al. 2022)",
            series="3 layers",
            metric="estimates.beyond_least_squares",
            level=0.1,
            rising=False,
        ),
        Near(
            expected="... and near that of Bayes, which knows the prior",
            series="3 layers",
            metric="estimates.model",
            gold="estimates.ridge",
            tolerance=0.05,
        ),
        NeverBelow(
            expected="never better than Bayes there",
            series="3 layers",
            metric="estimates.model",
            gold="estimates.ridge",
            slack=0.002,
        ),
    ),
    profile="estimates",
)

presets = {"smoke": {"base.train.steps": 60, "base.record.evaluations": 2, "base.model.layers": 1, "seeds": 2}}
