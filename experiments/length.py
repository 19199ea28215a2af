"""Which positions reach beyond the trained length? Six kinds, and RoPE stretched without training, to 8 times as far.

    lm sweep run experiments/length.py
    lm sweep run experiments/length.py --preset smoke

18 runs.
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
