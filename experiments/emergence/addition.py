"""Is the jump of exact match the model's or the metric's? Three-digit addition over model size and data.

    lm sweep run experiments/emergence/addition.py
    lm sweep run experiments/emergence/addition.py --preset smoke

63 runs, 14 minutes on shared cores. Found: exact match of reversed sums is 0.00, 0.06, 0.36, 0.39, 0.98, 0.95, 0.98
at 572 to 57,552 parameters (means of three seeds), of plain ones 0.00, 0.01, 0.01, 0.23, 0.86, 0.68, 0.69. Over size
neither is told from a smooth curve, since seeds fall into two groups (at 4,020 parameters 0.94, 0.12 and 0.02), of
which the mean is none; their log-probability is smooth, too (-6.6 to -0.1 nats). Over the loss of the same models
exact match is 0.13 at most down to 0.59 nats a token and 0.69 at 0.195, while log-probability goes on evenly: that
jump is the metric's. From 500 sums no size learns to add (0.08 at most on average).
"""

from experiments.base import small_on_task
from lm.config import replace
from lm.data.synthetic import Addition
from lm.evals import Answers
from lm.sweep import Advantage, Emergence, Panel, Shape, Verdict, at_widths

base = replace(
    small_on_task(Addition(digits=3, form="reversed"), Answers(choices=4), steps=1500),
    {
        "model.block.mixer.heads": 2,
        "model.block.mixer.kv_heads": 2,
        "model.embed_std": None,
        "record.evaluations": 1,
    },
)

experiment = Emergence(
    base=base,
    arms={
        "reversed": {},
        "plain": {"data.task": Addition(digits=3, form="plain")},
        "reversed, 500 sums": {"data.pool": 500},
    },
    sizes=at_widths(base, (4, 8, 12, 16, 24, 32, 48)),
    over="params",
    panels=(
        Panel(title="exact match", metrics=("answers.exact", "answers.foretold")),
        Panel(title="log-probability of the answer (nats)", metrics=("answers.logprob",)),
        Panel(title="tokens right, each given those before", metrics=("answers.token_accuracy",)),
        Panel(title="edits from the right answer", metrics=("answers.edit_distance",)),
        Panel(title="Brier score", metrics=("answers.brier",)),
        Panel(title="choice among 4", metrics=("answers.choice",), levels={"chance": 0.25}),
    ),
    verdicts=(
        Verdict(series="reversed", hard="answers.exact", soft="answers.logprob"),
        Verdict(series="plain", hard="answers.exact", soft="answers.logprob"),
        Verdict(series="reversed", hard="answers.exact", soft="answers.edit_distance"),
    ),
    claims=(
        Shape(
            expected="exact match of reversed sums is sharp over size",
            series="reversed",
            metric="answers.exact",
            kinds=("jump", "bend"),
        ),
        Shape(
            expected="their log-probability is smooth (Schaeffer et al. 2023)",
            series="reversed",
            metric="answers.logprob",
            kinds=("smooth",),
        ),
        Advantage(
            expected="reversed sums are learned by models that can't do plain ones (Lee et al. 2023)",
            of=("reversed", "answers.exact"),
            over=("plain", "answers.exact"),
        ),
        Advantage(
            expected="large models need the data: 500 sums don't generalise",
            of=("reversed", "answers.exact"),
            over=("reversed, 500 sums", "answers.exact"),
        ),
    ),
)

presets = {
    "smoke": {
        "base.train.steps": 60,
        "base.record.evaluations": 1,
        "sizes": at_widths(base, (8, 16)),
        "arms": {name: experiment.arms[name] for name in ("reversed", "plain")},
        "claims": experiment.claims[:3],
        "seeds": 1,
    }
}
