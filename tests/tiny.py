"""Tiny models that between them hold every component, with weights wide enough that nothing is near zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.models import Decoder
from lm.nn import (
    GELU,
    MLP,
    ALiBi,
    Attention,
    Block,
    GatedMLP,
    LayerNorm,
    Learned,
    LinearScaling,
    Llama3Scaling,
    NTKScaling,
    Parallel,
    PostNorm,
    ReLU,
    RMSNorm,
    RoPE,
    Sandwich,
    SharedParallel,
    Sigmoid,
    SiLU,
    Sinusoidal,
    SquaredReLU,
    T5Bias,
    YaRN,
    gqa,
    mha,
    mqa,
    param,
)

WIDTH, HEADS, VOCAB, LENGTH, LAYERS = 16, 4, 40, 12, 2
FF = MLP(hidden=24, activation=ReLU())

# Every mixer option, position, feed-forward, norm and residual form is in at least one of these.
BLOCKS: dict[str, Block] = {
    "mha": Block(mixer=mha(HEADS), ff=FF),
    "gqa": Block(mixer=gqa(HEADS, 2), ff=GatedMLP(hidden=24, activation=SiLU(), bias=True), norm=LayerNorm()),
    "mqa, no position": Block(mixer=mqa(HEADS, position=None), ff=MLP(hidden=24, activation=GELU(), bias=True)),
    "window": Block(mixer=gqa(HEADS, 2, window=3), ff=GatedMLP(hidden=24, activation=Sigmoid())),
    "window of one": Block(mixer=gqa(HEADS, 2, window=1), ff=FF),
    "biases": Block(mixer=gqa(HEADS, 2, bias=True, output_bias=True), ff=FF, norm=RMSNorm(bias=True)),
    "qk norm": Block(mixer=gqa(HEADS, 2, qk_norm=RMSNorm(zero_centered=True)), ff=FF, norm=RMSNorm(zero_centered=True)),
    "qk norm with bias, softcap": Block(mixer=mqa(HEADS, qk_norm=LayerNorm(), softcap=3.0), norm=LayerNorm(bias=False)),
    "head width, scale": Block(mixer=mha(HEADS, head_width=6, scale=0.3), ff=MLP(hidden=24, activation=SquaredReLU())),
    "rope, partial": Block(mixer=mha(HEADS, position=RoPE(fraction=0.5, base=100.0)), ff=FF, residual=PostNorm()),
    "rope, linear": Block(mixer=mha(HEADS, position=RoPE(scaling=LinearScaling(factor=2.0)))),
    "rope, ntk": Block(mixer=mha(HEADS, position=RoPE(scaling=NTKScaling(factor=2.0)))),
    "rope, yarn": Block(mixer=mqa(HEADS, position=RoPE(scaling=YaRN(factor=4.0, original_length=8)))),
    "rope, llama 3": Block(mixer=gqa(HEADS, 2, position=RoPE(scaling=Llama3Scaling(original_length=32)))),
    "alibi": Block(mixer=gqa(HEADS, 2, position=ALiBi()), ff=GatedMLP(hidden=24), residual=Sandwich()),
    "alibi, window": Block(mixer=mha(HEADS, position=ALiBi(), window=4), ff=FF, residual=Parallel()),
    "t5": Block(mixer=gqa(HEADS, 2, position=T5Bias(buckets=8, max_distance=10)), ff=FF, residual=SharedParallel()),
    "t5, window": Block(mixer=mqa(HEADS, position=T5Bias(buckets=8, max_distance=10), window=5), norm=None),
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


def attention(model: Decoder, layer: int = 0) -> Attention:
    mixer = model.pattern[layer % len(model.pattern)].mixer
    assert isinstance(mixer, Attention)
    return mixer


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
