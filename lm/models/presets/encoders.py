"""Encoders of published shapes, each with the head that it was trained with.

BERT: Devlin et al. 2018, section 3. RoBERTa: Liu et al. 2019, table 9. DistilBERT: Sanh et al. 2019, section 3. ALBERT:
Lan et al. 2019, table 1 (version 2). ELECTRA: Clark et al. 2020, table 6. ModernBERT: Warner et al. 2024.
Vocabularies, epsilons and what else the papers leave out, such as ELECTRA's small generator, which is as wide as its
discriminator, are from the configurations released with the weights.

The poolers of BERT and ALBERT, which serve the prediction of sentences, aren't there, nor are the two rows that
RoBERTa's table of positions has before the first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lm.config import replace
from lm.models.electra import Electra
from lm.models.encoder import Encoder
from lm.models.headed import Headed
from lm.models.heads import Classifier, MaskedLM
from lm.models.model import Model
from lm.nn.attention import mha
from lm.nn.block import Block, PostNorm, PreNorm
from lm.nn.feedforward import GELU, MLP, Activation, GatedMLP
from lm.nn.mask import Mask
from lm.nn.norms import LayerNorm
from lm.nn.positions import Learned
from lm.nn.rope import RoPE

EXACT = GELU(approximate=False)


def bert_style(
    width: int,
    layers: int,
    *,
    heads: int,
    hidden: int | None = None,
    vocab: int = 30522,
    epsilon: float = 1e-12,
    activation: Activation = EXACT,
    types: int = 2,
    **trunk: Any,
) -> Encoder:
    """Norms after each part and after the embeddings, biases, 512 learned positions.

    hidden None: 4 width. trunk: other fields of `Encoder`.
    """
    norm = LayerNorm(epsilon=epsilon)
    block = Block(
        mixer=mha(heads, position=None, mask=Mask(causal=False), bias=True, output_bias=True),
        ff=MLP(hidden=hidden or 4 * width, activation=activation, bias=True),
        norm=norm,
        residual=PostNorm(),
    )
    fields = {"position": Learned(length=512), "embed_norm": norm, "norm": None, "types": types, **trunk}
    return Encoder(vocab=vocab, width=width, layers=layers, block=block, **fields)


def modernbert_style(width: int, layers: int, *, heads: int, hidden: int, vocab: int = 50368) -> Encoder:
    """Norms before each part, no biases, GeGLU, RoPE; every third layer sees all, the others 64 tokens to each side."""
    norm = LayerNorm(epsilon=1e-5, bias=False)

    def block(base: float, window: int | None) -> Block:
        mixer = mha(heads, position=RoPE(base=base), mask=Mask(causal=False, window=window))
        return Block(mixer=mixer, ff=GatedMLP(hidden=hidden, activation=EXACT), norm=norm)

    local, everywhere = block(10000.0, 65), block(160000.0, None)
    return Encoder(
        vocab=vocab,
        width=width,
        layers=layers,
        first=(replace(everywhere, {"residual": PreNorm(unnormed=("mixer",))}),),
        block=(local, local, everywhere),
        embed_norm=norm,
        norm=norm,
    )


def masked_lm(body: Encoder) -> Headed:
    """The encoder with a head for hidden tokens: its transform has the layers' activation, the embeddings' norm."""
    activation: Any = body.each()[0].ff.activation  # type: ignore[union-attr]
    return Headed(body=body, head=MaskedLM(activation=activation, norm=body.embed_norm))


def replaced_token_detector(body: Encoder) -> Headed:
    """The encoder with a number for each token: whether it was replaced."""
    return Headed(body=body, head=Classifier(labels=1, pooling=None, inner=EXACT))


def _bert(width: int, layers: int, **shape: Any) -> Headed:
    return masked_lm(bert_style(width, layers, **shape))


def _modernbert(width: int, layers: int, **shape: Any) -> Headed:
    model = modernbert_style(width, layers, **shape)
    return Headed(body=model, head=MaskedLM(activation=EXACT, norm=model.norm, bias=False))


_roberta = partial(_bert, vocab=50265, epsilon=1e-5, types=1)
_albert = partial(_bert, vocab=30000, activation=GELU(approximate=True), embed_width=128, shared_layers=True)
GENERATORS: dict[str, Callable[[], Encoder]] = {
    "small": partial(bert_style, 256, 12, heads=4, embed_width=128),
    "base": partial(bert_style, 256, 12, heads=4, embed_width=768),
    "large": partial(bert_style, 256, 24, heads=4, embed_width=1024),
}
DISCRIMINATORS: dict[str, Callable[[], Encoder]] = {
    "small": GENERATORS["small"],
    "base": partial(bert_style, 768, 12, heads=12),
    "large": partial(bert_style, 1024, 24, heads=16),
}


def _generator(size: str) -> Headed:
    return masked_lm(GENERATORS[size]())


def _discriminator(size: str) -> Headed:
    return replaced_token_detector(DISCRIMINATORS[size]())


def _electra(size: str) -> Electra:
    return Electra(generator=_generator(size), discriminator=_discriminator(size))


ENCODERS: dict[str, Callable[[], Model]] = {
    "bert-base": partial(_bert, 768, 12, heads=12),
    "bert-large": partial(_bert, 1024, 24, heads=16),
    "roberta-base": partial(_roberta, 768, 12, heads=12),
    "roberta-large": partial(_roberta, 1024, 24, heads=16),
    "distilbert": partial(_bert, 768, 6, heads=12, types=0),
    "albert-base": partial(_albert, 768, 12, heads=12),
    "albert-large": partial(_albert, 1024, 24, heads=16),
    "albert-xlarge": partial(_albert, 2048, 24, heads=16),
    "albert-xxlarge": partial(_albert, 4096, 12, heads=64),
    "modernbert-base": partial(_modernbert, 768, 22, heads=12, hidden=1152),
    "modernbert-large": partial(_modernbert, 1024, 28, heads=16, hidden=2624),
    **{f"electra-{size}-generator": partial(_generator, size) for size in GENERATORS},
    **{f"electra-{size}-discriminator": partial(_discriminator, size) for size in GENERATORS},
    **{f"electra-{size}": partial(_electra, size) for size in GENERATORS},
}
