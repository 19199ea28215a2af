"""Where do published models get their abilities? 84 models on tasks of BIG-bench that were called emergent.

    lm sweep run experiments/emergence/published.py
    lm sweep run experiments/emergence/published.py --preset smoke

No runs; a minute for the intervals. The table is that of Ruan et al. 2024 (see published.SOURCE.txt). Found: half-way
from chance to the upper end, in log10 FLOPs: word unscrambling 23.86 [23.57, 24.08], Persian QA 24.11 [23.96, 24.57],
2-digit addition 22.21 [21.82, 22.49], 3-digit addition 22.54 [22.22, 22.79], 3-digit subtraction 22.59 [22.40,
22.77], 2-digit multiplication 22.84 [22.62, 23.00], IPA by exact match 23.90 [23.17, 24.67] and by BLEU 23.43 [23.14,
23.85]. Intervals are over families: at equal compute they differ by up to 0.003 against 1.000.
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
