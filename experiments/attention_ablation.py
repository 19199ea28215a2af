"""Does sharing keys and values cost quality? MHA, GQA and MQA at equal parameters.

    lm sweep run experiments/attention_ablation.py
    lm sweep run experiments/attention_ablation.py --preset smoke
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
