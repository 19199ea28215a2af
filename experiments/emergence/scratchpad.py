"""From which size on does writing steps help? The sum of many numbers, said at once or after its partial sums.

    lm sweep run experiments/emergence/scratchpad.py
    lm sweep run experiments/emergence/scratchpad.py --preset smoke

42 runs, 5 minutes on a shared core. Found: sums of six numbers said at once stay at chance (0.09) at every size;
after their partial sums they are right in 0.13, 0.25, 0.60 and 0.99 of cases at 552, 1,116, 1,872 and 3,960
parameters (means of three seeds). The jump is the model's, not the metric's: the log-probability of what is written
jumps at the same place.
"""

from experiments.base import small_on_task
from lm.config import replace
from lm.data.synthetic import ModularSum
from lm.evals import Answers
from lm.sweep import Advantage, Emergence, Panel, Verdict, at_widths

base = replace(
    small_on_task(ModularSum(terms=6, modulus=10, form="scratchpad"), Answers(), steps=1000),
    {"model.block.mixer.heads": 2, "model.block.mixer.kv_heads": 2},
)

experiment = Emergence(
    base=base,
    arms={"steps": {}, "at once": {"data.task": ModularSum(terms=6, modulus=10, form="direct")}},
    sizes=at_widths(base, (4, 6, 8, 12, 16, 32, 64)),
    over="params",
    panels=(
        Panel(title="answers that are right", metrics=("answers.exact",), levels={"guessing": 0.1}),
        Panel(title="tokens right, each given those before", metrics=("answers.token_accuracy",)),
        Panel(title="log-probability of all that is written", metrics=("answers.logprob",)),
    ),
    verdicts=(Verdict(series="steps", hard="answers.exact", soft="answers.logprob"),),
    claims=(
        Advantage(
            expected="intermediate steps help above a size and not below (Wei et al. 2022)",
            of=("steps", "answers.exact"),
            over=("at once", "answers.exact"),
            margin=0.2,
        ),
    ),
)

presets = {
    "smoke": {
        "base.train.steps": 60,
        "base.record.evaluations": 1,
        "sizes": at_widths(base, (4, 16)),
        "seeds": 2,
    }
}
