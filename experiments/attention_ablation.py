"""Does sharing keys and values cost quality? MHA, GQA and MQA at equal parameters.

    lm sweep run experiments/attention_ablation.py
    lm sweep run experiments/attention_ablation.py --preset smoke

16 runs, 26 minutes on two CPU cores. Found: no cost that four seeds can see. Held-out loss (nats a byte) MHA 1.5236,
GQA-4 1.5020, GQA-2 1.4870, MQA 1.4759; against MHA -0.022 [-0.041, -0.002], -0.037 [-0.068, -0.005], -0.048
[-0.095, -0.001], p = 0.105 each, corrected for three comparisons: not resolved, about one more seed would do.
Decoding at 8,192 tokens: 516, 627, 909 and 903 tokens/s. One byte a parameter is a short training.
"""

from experiments.base import small_decoder, smoke
from lm.nn import gqa, mha, mqa
from lm.sweep import Ablation

experiment = Ablation(
    base=small_decoder(),
    at="model.block.mixer",
    arms={"MHA": mha(8), "GQA-4": gqa(8, kv_heads=4), "GQA-2": gqa(8, kv_heads=2), "MQA": mqa(8)},
    match="params",  # the feed-forward layer takes what the keys and values give back
    multiple=2,
    seeds=4,
    decode_contexts=(128, 512, 2048, 8192),
)

presets = {"smoke": smoke(decode_contexts=(128, 512, 2048))}
