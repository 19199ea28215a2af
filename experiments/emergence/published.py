"""Where do published models get their abilities? 84 models on tasks of BIG-bench that were called emergent.

    lm sweep run experiments/emergence/published.py
    lm sweep run experiments/emergence/published.py --preset smoke

HEADER
"""

from pathlib import Path

from lm.sweep import Published

experiment = Published(
    scores=str(Path(__file__).with_name("published.csv")),
    tasks=(
        "word_unscrambling",
        "parsinlu_qa",
        "ipa_transliterate",
        "arithmetic_2da",
        "arithmetic_3da",
        "arithmetic_3ds",
        "arithmetic_2dm",
    ),
)

presets = {"smoke": {"resamples": 50}}
