"""Which positions reach beyond the trained length? Six kinds, and RoPE stretched without training, to 8 times as far.

    lm sweep run experiments/length.py
    lm sweep run experiments/length.py --preset smoke

18 runs, 16 minutes by two workers that had about a third of a core each. Found: the same text read in rows of 1,024
bytes, not the trained 128, costs (nats a byte) with ALiBi -0.0096 [-0.0115, -0.0077], with RoPE +0.91 [0.45, 1.38],
with RoPE scaled by YaRN, without training, +0.40 [0.29, 0.52]; at 256 bytes YaRN has 1.777, plain RoPE 1.946. NTK is
between the two (+0.52 [0.15, 0.89]); interpolation without training is worse than plain RoPE at every length in every
seed. Learned positions end at 128. After so short a training learned, sinusoidal, T5 bias and none have 2.19 to 2.24 at
128 bytes (RoPE 1.750, ALiBi 1.765): that they lose little beyond says little.
"""

from experiments.base import smoke, tiny_decoder
from lm.config import replace
from lm.evals import Lengths
from lm.nn import ALiBi, Learned, LinearScaling, NTKScaling, RoPE, Sinusoidal, T5Bias, YaRN
from lm.sweep import Extrapolation

RELATIVE, ABSOLUTE = "model.block.mixer.position", "model.position"
TRAINED, LENGTHS = 128, (128, 256, 512, 1024)


def measures(rows: int) -> tuple[Lengths, ...]:
    """As it was trained, and with RoPE stretched to each length: the measures put N / 128 in place of the factors."""
    stretched = {
        "interpolated": LinearScaling(factor=1.0),
        "NTK": NTKScaling(factor=1.0),
        "YaRN": YaRN(factor=1.0, original_length=TRAINED),
    }
    plain = Lengths(lengths=LENGTHS, rows=rows)
    return plain, *(Lengths(name=name, lengths=LENGTHS, rows=rows, scaling=s) for name, s in stretched.items())


experiment = Extrapolation(
    base=replace(
        tiny_decoder(),
        {
            "data.length": TRAINED,
            "train.steps": 250,
            "record.evaluations": 0,  # but at the end
            "record.measures": measures(rows=64),
        },
    ),
    arms={
        "RoPE": {RELATIVE: RoPE()},
        "ALiBi": {RELATIVE: ALiBi()},
        "T5 bias": {RELATIVE: T5Bias()},
        "none": {RELATIVE: None},
        "learned": {RELATIVE: None, ABSOLUTE: Learned(length=TRAINED)},
        "sinusoidal": {RELATIVE: None, ABSOLUTE: Sinusoidal(scale=0.1)},  # token vectors start at norm 1, not sqrt(D)
    },
    seeds=3,
)

presets = {"smoke": smoke(**{"base.record.measures": measures(rows=4)})}
