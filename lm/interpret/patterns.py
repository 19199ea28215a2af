"""Where a model's heads look: the attention probabilities of every layer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lm.models.decoder import DecoderModel
from lm.nn.block import BlockLayer
from lm.nn.mask import positions_of
from lm.shapes import Array, Float, Int


def attention_patterns(
    model: DecoderModel,
    tokens: Int[Array, "B L"],
    positions: Int[Array, "B L"] | None = None,
    segments: Int[Array, "B L"] | None = None,
) -> list[Float[Array, "B H L S"] | None]:
    """What each head of each layer reads at each token, as probabilities; None for a layer that has no such heads.

    Without segments each row is one document. A pure function, also inside jit: `program.apply(attention_patterns)`.
    All of them together are large: a measure makes numbers of them where they are computed.
    """
    segments = jnp.ones_like(tokens) if segments is None else segments
    positions = positions_of(segments) if positions is None else positions
    x, found = model.embed(tokens, positions), []
    for block in model.layers():
        read, x = watched(block, x, positions, segments)
        found.append(block.mixer.pattern(read, positions, segments))
    return found


def watched(
    block: BlockLayer, x: Float[Array, "B L D"], positions: Int[Array, "B L"], segments: Int[Array, "B L"]
) -> tuple[Float[Array, "B L D"], Float[Array, "B L D"]]:
    """What the mixer of a layer reads, wherever its norms stand, and what the layer gives."""
    block, mixer, read = jax.tree.map(lambda p: p, block), block.mixer, []

    def noting(h: jax.Array, *others: Any) -> tuple[jax.Array, Any]:
        read.append(h)
        return mixer(h, *others)

    block.mixer = noting  # type: ignore[assignment]  # of the copy
    y, _, _ = block(x, positions, segments)
    return read[0], y
