"""What does each objective make of the same text? Causal, masked, spans and diffusion, of one size and one text.

    lm sweep run experiments/objectives.py
    lm sweep run experiments/objectives.py --preset smoke

8 runs; the six of the first three arms took 21 minutes by two workers that had a third to a seventh of a core each.
Found, by two seeds: causal 1.504 nats a byte, exactly; masked diffusion at most 2.377; masked 1.431, of 15% of the
bytes given the others, and span corruption 2.182, of spans given the rest, neither of which is a likelihood. Filling
in one byte amid 512 held-out rows: masked is right in 62.5%, causal, which sees one side, in 56.2%, masked diffusion
in 44.8%, in this order in both seeds. Span corruption fills in 15.6%, the share of spaces, at 3.09 nats where the
frequencies of those bytes alone give 3.02: after 500 steps it doesn't look at what surrounds a single byte. All arms
have one learning rate, tuned for none of them.
"""

from experiments.base import smoke, tiny_decoder
from lm.config import replace
from lm.evals import Infilling
from lm.nn import Mask
from lm.objectives import Masked, MaskedDiffusion, NextToken, SpanCorruption
from lm.sweep import Above, Emergence, Panel

OBJECTIVE, MASK = "train.objective", "model.block.mixer.mask"
SENTINELS = 16
NATS, FILLED = "heldout.loss", "infilling.accuracy"

experiment = Emergence(
    base=replace(
        tiny_decoder(),
        {
            "model.vocab": 256 + SENTINELS,  # in all arms, so that they are of one size to the parameter
            "train.steps": 500,
            "record.heldout_rows": 256,
            "record.measures": (Infilling(rows=512),),
        },
    ),
    arms={
        "causal": {OBJECTIVE: NextToken()},
        "masked diffusion": {OBJECTIVE: MaskedDiffusion(), MASK: Mask(causal=False)},
        "masked": {OBJECTIVE: Masked(), MASK: Mask(causal=False)},
        "span corruption": {OBJECTIVE: SpanCorruption(sentinels=SENTINELS), MASK: Mask(prefix=True)},
    },
    # nats of one name that are of different things: only likelihoods, and what bounds them, share an axis
    panels=(
        Panel(title="nats a byte: exact, bound", metrics=(NATS,), series=("causal", "masked diffusion")),
        Panel(title="nats of 15% given 85%", metrics=(NATS,), series=("masked",)),
        Panel(title="nats of spans given the rest", metrics=(NATS,), series=("span corruption",)),
        Panel(title="one byte filled in, accuracy", metrics=(FILLED,)),
        Panel(title="one byte filled in, nats", metrics=("infilling.nats",)),
    ),
    claims=(
        Above(
            expected="diffusion's bound lies above the causal model's likelihood",
            of=("masked diffusion", NATS),
            over=("causal", NATS),
        ),
        Above(
            expected="a missing byte: masked, which sees both sides, beats causal, which sees one",
            of=("masked", FILLED),
            over=("causal", FILLED),
        ),
        Above(
            expected="and so does masked diffusion",
            of=("masked diffusion", FILLED),
            over=("causal", FILLED),
        ),
        Above(
            expected="and span corruption, which isn't told that it is one byte",
            of=("span corruption", FILLED),
            over=("causal", FILLED),
        ),
    ),
    over="tokens",
    seeds=2,
)

presets = {"smoke": smoke(**{"base.record.measures": (Infilling(rows=32),)})}
