"""Tiny models that between them hold every component, with weights wide enough that nothing is near zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.models import Decoder
from lm.nn import (
    GELU,
    GRU,
    LSTM,
    MLA,
    MLP,
    AcrossHeads,
    ALiBi,
    Attention,
    BagOfWords,
    Block,
    BlockSparse,
    Capacity,
    Dense,
    Differential,
    Direct,
    DynamicNTK,
    ExpertChoice,
    Fixed,
    FixedCapacity,
    FixedWindow,
    GatedDeltaNet,
    GatedMLP,
    GateThenNorm,
    GroupLimit,
    Hash,
    LayerNorm,
    Learned,
    LinearScaling,
    Llama3Scaling,
    LoadBalance,
    LongRoPE,
    LossFree,
    Mamba,
    Mamba2,
    Mask,
    Mixer,
    MoE,
    NormThenGate,
    NTKScaling,
    OutputNorm,
    Parallel,
    Plain,
    PostNorm,
    ProportionalScaling,
    ReLU,
    Retention,
    RMSNorm,
    RoPE,
    RouterZ,
    Sandwich,
    SequenceBalance,
    SharedParallel,
    Sigmoid,
    SigmoidGated,
    SigmoidTopK,
    SiLU,
    Sinusoidal,
    SquaredReLU,
    Strided,
    T5Bias,
    Tanh,
    YaRN,
    gqa,
    mha,
    mqa,
    param,
    switch,
)

WIDTH, HEADS, VOCAB, LENGTH, LAYERS = 16, 4, 40, 12, 2
FF = MLP(hidden=24, activation=ReLU())

# Every mixer option, position, feed-forward, norm and residual form is in at least one of these.
BLOCKS: dict[str, Block] = {
    "mha": Block(mixer=mha(HEADS), ff=FF),
    "gqa": Block(mixer=gqa(HEADS, 2), ff=GatedMLP(hidden=24, activation=SiLU(), bias=True), norm=LayerNorm()),
    "mqa, no position": Block(mixer=mqa(HEADS, position=None), ff=MLP(hidden=24, activation=GELU(), bias=True)),
    "window": Block(mixer=gqa(HEADS, 2, mask=Mask(window=3)), ff=GatedMLP(hidden=24, activation=Sigmoid())),
    "window of one": Block(mixer=gqa(HEADS, 2, mask=Mask(window=1)), ff=MLP(hidden=24, activation=Tanh())),
    "biases": Block(mixer=gqa(HEADS, 2, bias=True, output_bias=True), ff=FF, norm=RMSNorm(bias=True)),
    "qk norm": Block(mixer=gqa(HEADS, 2, qk_norm=RMSNorm(zero_centered=True)), ff=FF, norm=RMSNorm(zero_centered=True)),
    "qk norm with bias, softcap": Block(mixer=mqa(HEADS, qk_norm=LayerNorm(), softcap=3.0), norm=LayerNorm(bias=False)),
    "head width, scale": Block(mixer=mha(HEADS, head_width=6, scale=0.3), ff=MLP(hidden=24, activation=SquaredReLU())),
    "rope, partial": Block(mixer=mha(HEADS, position=RoPE(fraction=0.5, base=100.0)), ff=FF, residual=PostNorm()),
    "rope, linear": Block(mixer=mha(HEADS, position=RoPE(scaling=LinearScaling(factor=2.0)))),
    "rope, ntk": Block(mixer=mha(HEADS, position=RoPE(scaling=NTKScaling(factor=2.0)))),
    "rope, yarn": Block(mixer=mqa(HEADS, position=RoPE(scaling=YaRN(factor=4.0, original_length=8)))),
    "rope, yarn of all dimensions": Block(
        mixer=mha(
            HEADS,
            position=RoPE(
                fraction=0.5,
                scaling=YaRN(factor=4.0, original_length=32, mscale=0.7, mscale_all_dim=1.2, truncate=False),
            ),
        )
    ),
    "rope, dynamic": Block(mixer=gqa(HEADS, 2, position=RoPE(scaling=DynamicNTK(factor=2.0, original_length=LENGTH)))),
    "rope, longrope": Block(
        mixer=gqa(
            HEADS,
            2,
            position=RoPE(scaling=LongRoPE(short=(1.0, 1.5), long=(2.0, 4.0), factor=3.0, original_length=LENGTH)),
        )
    ),
    "rope, proportional": Block(mixer=mha(HEADS, position=RoPE(scaling=ProportionalScaling(turned=0.5)))),
    "rope, llama 3": Block(mixer=gqa(HEADS, 2, position=RoPE(scaling=Llama3Scaling(original_length=32)))),
    "qk norm across heads": Block(
        mixer=gqa(HEADS, 2, qk_norm=AcrossHeads(norm=RMSNorm())), ff=FF, residual=OutputNorm()
    ),
    "prefix": Block(mixer=gqa(HEADS, 2, mask=Mask(prefix=True)), ff=FF),
    "prefix, window": Block(mixer=mqa(HEADS, mask=Mask(prefix=True, window=4))),
    "sinks": Block(mixer=gqa(HEADS, 2, mask=Mask(window=2, sinks=1)), ff=FF),
    "strided": Block(mixer=mha(HEADS, mask=Mask(window=2, pattern=Strided(stride=4))), ff=FF),
    "dilated": Block(mixer=mqa(HEADS, mask=Mask(pattern=Strided(stride=2, count=3))), ff=FF),
    "fixed": Block(mixer=mha(HEADS, mask=Mask(pattern=Fixed(stride=4, summary=2)))),
    "blocks": Block(mixer=gqa(HEADS, 2, mask=Mask(pattern=BlockSparse(size=2)))),
    "blocks, random": Block(
        mixer=mha(HEADS, mask=Mask(sinks=1, pattern=BlockSparse(size=2, near=0, random=1, seed=1)))
    ),
    "mla": Block(mixer=MLA(heads=HEADS, kv_rank=6, q_rank=5, nope_width=4, rope_width=2, value_width=3), ff=FF),
    "mla, one query map": Block(
        mixer=MLA(
            heads=2,
            kv_rank=8,
            nope_width=3,
            rope_width=4,
            value_width=5,
            position=RoPE(scaling=YaRN(factor=4.0, original_length=32, mscale_all_dim=1.0)),
            mask=Mask(window=5),
            norm=LayerNorm(),
            bias=True,
            output_bias=True,
        )
    ),
    "mla, scale": Block(
        mixer=MLA(heads=2, kv_rank=4, q_rank=6, nope_width=4, rope_width=2, value_width=4, bias=True, scale=0.3)
    ),
    "differential": Block(mixer=Differential(heads=2, kv_heads=1), ff=FF),
    "differential, window": Block(
        mixer=Differential(heads=2, kv_heads=2, head_width=6, mask=Mask(window=3), lambda_init=0.3)
    ),
    "alibi": Block(mixer=gqa(HEADS, 2, position=ALiBi()), ff=GatedMLP(hidden=24), residual=Sandwich()),
    "alibi, window": Block(mixer=mha(HEADS, position=ALiBi(), mask=Mask(window=4)), ff=FF, residual=Parallel()),
    "t5": Block(mixer=gqa(HEADS, 2, position=T5Bias(buckets=8, max_distance=10)), ff=FF, residual=SharedParallel()),
    "t5, window": Block(mixer=mqa(HEADS, position=T5Bias(buckets=8, max_distance=10), mask=Mask(window=5)), norm=None),
    "lstm": Block(mixer=LSTM(), norm=None, residual=Plain()),
    "lstm, hidden": Block(mixer=LSTM(hidden=24), ff=FF),
    "gru": Block(mixer=GRU(), residual=Plain()),
    "gru, hidden": Block(mixer=GRU(hidden=20), ff=FF),
    "fixed window": Block(mixer=FixedWindow(tokens=3), norm=None, residual=Plain()),
    "fixed window, hidden, direct": Block(mixer=FixedWindow(tokens=4, hidden=24, direct=Direct()), ff=FF),
    "bag of words": Block(mixer=BagOfWords(), ff=FF),
    "mamba": Block(mixer=Mamba(state=5, conv=3, chunk=5), ff=FF),
    "mamba, norms, biases": Block(
        mixer=Mamba(expand=3, state=4, dt_rank=3, norm=RMSNorm(), conv_bias=False, bias=True, chunk=64)
    ),
    "mamba-2": Block(mixer=Mamba2(heads=4, head_width=6, groups=2, state=5, conv=3, chunk=4), ff=FF),
    "mamba-2, step limits, biases": Block(
        mixer=Mamba2(
            heads=4, head_width=8, state=6, norm=NormThenGate(), dt_least=0.1, dt_most=0.5, conv_bias=False, bias=True
        )
    ),
    "gated delta net": Block(
        mixer=GatedDeltaNet(heads=4, key_heads=2, key_width=6, value_width=5, conv=3, chunk=5), ff=FF
    ),
    "gated delta net, norm after gate": Block(
        mixer=GatedDeltaNet(heads=2, key_heads=2, key_width=4, value_width=6, norm=GateThenNorm(), conv_bias=True)
    ),
    "retention": Block(mixer=Retention(heads=HEADS, value_width=6, chunk=5), ff=FF),
    "linear attention": Block(mixer=Retention(heads=2, key_width=6, value_width=4, span=None, position=None), ff=FF),
    "moe": Block(mixer=mha(HEADS), ff=MoE(expert=GatedMLP(hidden=8), experts=4, losses=(LoadBalance(), RouterZ()))),
    "moe, sigmoid, shared": Block(
        mixer=gqa(HEADS, 2),
        ff=MoE(
            expert=MLP(hidden=8, activation=SiLU(), bias=True),
            experts=8,
            routing=SigmoidTopK(k=3, scale=2.5, limit=GroupLimit(groups=4, chosen=2)),
            shared=SigmoidGated(ff=GatedMLP(hidden=8)),
            losses=(LossFree(), SequenceBalance()),
        ),
    ),
    "moe, switch with room for all": Block(
        mixer=mha(HEADS), ff=MoE(expert=FF, experts=4, routing=switch(bias=True), dispatch=Capacity(factor=4.0))
    ),
    "moe, switch with places for all": Block(
        mixer=mha(HEADS), ff=MoE(expert=FF, experts=4, routing=switch(), dispatch=FixedCapacity(places=LENGTH))
    ),
    "moe, experts that choose all": Block(
        mixer=mha(HEADS), ff=MoE(expert=FF, experts=3, routing=ExpertChoice(factor=3.0), losses=())
    ),
    "moe, hash": Block(
        mixer=mha(HEADS), ff=MoE(expert=FF, experts=4, routing=Hash(seed=1), dispatch=Dense(), losses=())
    ),
}

MODELS: dict[str, Decoder] = {
    name: Decoder(vocab=VOCAB, width=WIDTH, layers=LAYERS, block=block) for name, block in BLOCKS.items()
} | {
    "learned": Decoder(
        vocab=VOCAB,
        width=WIDTH,
        layers=LAYERS,
        block=Block(mixer=gqa(HEADS, 2, position=None), ff=FF),
        position=Learned(length=LENGTH + 4),
        tied=False,
        softcap=4.0,
    ),
    "sinusoidal": Decoder(
        vocab=VOCAB,
        width=WIDTH,
        layers=LAYERS,
        block=Block(mixer=mha(HEADS, position=None)),
        position=Sinusoidal(base=100.0),
        norm=None,
        embed_scale=None,
    ),
    "hybrid": Decoder(vocab=VOCAB, width=WIDTH, layers=3, block=(BLOCKS["mamba-2"], BLOCKS["gqa"])),
    "pattern": Decoder(vocab=VOCAB, width=WIDTH, layers=3, block=(BLOCKS["window"], BLOCKS["gqa"])),
}


def made(model: Decoder, seed: int = 0, std: float = 0.5) -> tuple[nnx.GraphDef, param.Params]:
    """The model's graph, and parameters drawn wide: scales of norms around 1, all others around 0."""
    graph, shapes = param.split(nnx.eval_shape(lambda: model.build(rngs=nnx.Rngs(params=0))))

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        noise = np.random.default_rng([seed, *map(ord, name)]).normal(size=leaf.shape)
        return jnp.asarray(1 + 0.3 * noise if name.endswith("scale") else std * noise, jnp.float32)

    return graph, jax.tree_util.tree_map_with_path(draw, shapes)


def mixer_of(model: Decoder, layer: int = 0) -> Mixer:
    return model.pattern[layer % len(model.pattern)].mixer


def attention(model: Decoder, layer: int = 0) -> Attention:
    mixer = mixer_of(model, layer)
    assert isinstance(mixer, Attention)
    return mixer


def mask_of(mixer: Mixer) -> Mask:
    """What it may see; a mixer that says nothing sees all that came before."""
    return getattr(mixer, "mask", Mask())


def pair_flops(mixer: Mixer, width: int) -> int:
    """FLOPs of a (query, key) pair, which the program does for masked ones too; 0 for mixers without pairs."""
    count: Callable[[int], int] | None = getattr(mixer, "pair_flops", None)
    return 0 if count is None else count(width)


def packed(rows: int = 2, length: int = LENGTH, seed: int = 0) -> dict[str, np.ndarray]:
    """A training batch of packed documents, padded at the end of the last row."""
    rng = np.random.default_rng(seed)
    segments = np.ones((rows, length), np.int32)
    for row in range(rows):
        for cut in rng.choice(np.arange(1, length), size=row % 3, replace=False):
            segments[row, cut:] += 1
    segments[-1, length - 2 :] = 0
    starts = np.concatenate([np.ones((rows, 1), bool), segments[:, 1:] != segments[:, :-1]], axis=1)
    index = np.broadcast_to(np.arange(length), segments.shape)
    return {
        "tokens": rng.integers(0, VOCAB, (rows, length)).astype(np.int32),
        "targets": rng.integers(0, VOCAB, (rows, length)).astype(np.int32),
        "positions": (index - np.maximum.accumulate(np.where(starts, index, 0), axis=1)).astype(np.int32),
        "segments": segments,
        "weights": (segments > 0).astype(np.float32),
    }
