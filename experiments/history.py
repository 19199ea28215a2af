"""What have thirty years of language models brought, at equal parameters and equal training compute?

    lm sweep run experiments/history.py
    lm sweep run experiments/history.py --preset smoke
    lm sweep run experiments/history.py --preset rates

12 runs, and 24 short ones for the rates, 45 minutes by two workers on cores with much other work. Found, at 0.2M
parameters and 9.2e11 FLOPs (2 to 4 bytes a parameter), in bits a byte, mean and standard deviation of two seeds, which
are too few to decide much: Mamba-2 with attention 2.095 (0.023) and alone 2.107 (0.002), Llama 2.354 (0.011), NNLM
2.438 (0.006), LSTM 2.538 (0.050), GPT 3.237 (0.012). Counting beats them all: Kneser-Ney of order 4 has 2.021, of order
6 1.686, after 0.2 and 0.4 s on one core. After so short a training GPT is where 2-grams are (3.252). Mamba-2
against Llama is -0.17 nats a byte [-0.23, -0.11], p = 0.07 corrected; only GPT against Llama is resolved.

Equal: parameters within 1.2%, training FLOPs within 0.2% by steps (224 to 390), the order of the batches, AdamW. The
rate of each arm is the best of RATES in one run of a third of the compute with another seed; only the LSTM's is the
last of the grid. Embeddings have size 1 where no norm precedes the first layer; without that LSTM and GPT stayed above
4.1 bits at every rate.
"""

from typing import Any

from experiments.base import smoke, tiny_decoder
from lm.config import replace
from lm.early import NGram
from lm.models import Decoder
from lm.nn import LSTM, MLP, Block, FixedWindow, LayerNorm, Learned, Mamba2, Plain, PostNorm, mha, swiglu
from lm.sweep import Ablation

RATE, LENGTH = "train.optimizer.learning_rate", 128
state_space = Block(mixer=Mamba2(heads=2, head_width=64, state=64, chunk=32))
llama = Block(mixer=mha(4), ff=swiglu(176))


def of_first_layer_unnormed(width: int, layers: int, block: Block, **fields: Any) -> Decoder:
    """embed_scale: no norm brings the embeddings to a size that the first layer can work with."""
    return Decoder(vocab=256, width=width, layers=layers, block=block, norm=None, embed_scale=None, **fields)


def before_residuals(mixer: Any, layers: int, **fields: Any) -> Decoder:
    return of_first_layer_unnormed(112, layers, Block(mixer=mixer, norm=None, residual=Plain()), **fields)


def of_width_64(layers: int, block: Block | tuple[Block, ...]) -> Decoder:
    return Decoder(vocab=256, width=64, layers=layers, block=block)


def gpt() -> Decoder:
    attention = mha(4, position=None, bias=True, output_bias=True)
    block = Block(mixer=attention, ff=MLP(hidden=256, bias=True), norm=LayerNorm(), residual=PostNorm())
    return of_first_layer_unnormed(64, 4, block, position=Learned(length=LENGTH))


# name -> the model, what makes it as large as the first one, and its learning rate, the best of RATES by --preset rates
MODELS: dict[str, tuple[Decoder, str, float]] = {
    "Llama, 2023": (of_width_64(4, llama), "model.block.ff.hidden", 1e-2),
    "NNLM, 2003": (
        before_residuals(FixedWindow(tokens=16), 1, tied=False, head_bias=True), "model.width", 1e-2,
    ),
    "LSTM, 1997": (before_residuals(LSTM(), 2), "model.width", 3e-2),
    "GPT, 2018": (gpt(), "model.block.ff.hidden", 1e-2),
    "Mamba-2, 2024": (of_width_64(6, state_space), "model.block.mixer.state", 1e-2),
    "Mamba-2 and attention": (of_width_64(6, (state_space, state_space, llama)), "model.block.2.ff.hidden", 1e-2),
}  # fmt: skip
RATES = (1e-3, 3e-3, 1e-2, 3e-2)

experiment = Ablation(
    base=replace(tiny_decoder(), {"data.length": LENGTH, "train.steps": 300, "record.evaluations": 2}),
    arms={name: {"model": model, RATE: rate} for name, (model, _, rate) in MODELS.items()},
    match="params",
    adjust={name: path for name, (_, path, _) in MODELS.items()},
    multiple=2,
    budget="flops",
    seeds=2,
    ngrams=tuple(NGram(order=order) for order in (2, 3, 4, 6)),
)

tried = [(f"{name}, {rate:g}", one, rate) for name, one in MODELS.items() for rate in RATES]
presets = {
    "smoke": smoke(),
    "rates": {
        "arms": {label: {"model": model, RATE: rate} for label, (model, _, _), rate in tried},
        "adjust": {label: path for label, (_, path, _), _ in tried},
        "base.train.steps": 100,
        "base.seed": 100,  # no seed of the experiment itself
        "base.data.seed": 100,
        "seeds": 1,
        "ngrams": (),
    },
}
