"""Does a transformer do least squares in its context? Linear regression told as tokens: new weights in every row.

    lm sweep run experiments/emergence/regression.py
    lm sweep run experiments/emergence/regression.py --preset smoke

HEADER
"""

from experiments.base import small_on_task
from lm.config import replace
from lm.data.synthetic import LinearRegression
from lm.evals import Estimates
from lm.nn import RoPE
from lm.sweep import Emergence, Near, NeverBelow, Panel

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
        Near(
            expected="after 2 d pairs the error is within 0.1 of least squares (Garg et al. 2022)",
            series="3 layers",
            metric="estimates.model",
            gold="estimates.least_squares",
            tolerance=0.1,
        ),
        Near(
            expected="it is nearer to Bayes, which knows the prior, than to least squares",
            series="3 layers",
            metric="estimates.model",
            gold="estimates.ridge",
            tolerance=0.05,
        ),
        NeverBelow(
            expected="never better than Bayes",
            series="3 layers",
            metric="estimates.model",
            gold="estimates.ridge",
            slack=0.002,
        ),
    ),
    profile="estimates",
)

presets = {"smoke": {"base.train.steps": 60, "base.record.evaluations": 2, "base.model.layers": 1, "seeds": 2}}
