"""Cross-attention: queries from one sequence, keys and values from another."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from flax import nnx

from lm.config import ConfigError, config
from lm.nn import cache as kv
from lm.nn.attention import Attention, AttentionLayer
from lm.nn.cost import Cost, dense
from lm.nn.kernels import attention, attention_decode
from lm.nn.kernels.attention_decode import Slots
from lm.nn.mask import Mask
from lm.shapes import Array, Float, Int
from lm.sharding import Layout


class Context(NamedTuple):
    """What is read: h [B S D], with its positions and segments [B S]. Segment d is read by the tokens of segment d."""

    h: jax.Array
    positions: jax.Array
    segments: jax.Array


@config
class Cross:
    """Attention to an encoder's output (Vaswani et al. 2017, 3.2.3): every token sees its whole context.

    attention: its sizes, norms and biases, without mask and position. `cross_attention(heads)` makes one.
    """

    attention: Attention

    def __post_init__(self) -> None:
        if self.attention.mask != Mask(causal=False) or self.attention.position is not None:
            raise ConfigError("cross-attention sees all of its context: give mask=Mask(causal=False), position=None")

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> CrossLayer:
        return CrossLayer(self.attention, width, rngs=rngs, depth=depth)

    def check_split(self, where: Layout) -> None:
        """Raises ShardingError where it can't be split so."""
        self.attention.check_split(where)

    def cost(self, width: int, length: int, context: int) -> Cost:
        """Of `length` tokens that read `context` others, whose keys and values are kept while decoding."""
        spec, p = self.attention, self.attention.width_of_head(width)
        q = dense(width, spec.heads * p, length, spec.bias)
        k = dense(width, spec.kv_heads * p, context, spec.bias)
        out = dense(spec.heads * p, width, length, spec.output_bias)
        rest = Cost(flops=4 * length * context * spec.heads * p, cache=2 * context * spec.kv_heads * p)
        return q + k + k + out + rest + spec.norms_cost(p)


def cross_attention(heads: int, kv_heads: int | None = None, **fields: Any) -> Cross:
    """Cross-attention of so many heads; `fields` are those of `Attention`."""
    spec = Attention(heads=heads, kv_heads=kv_heads or heads, position=None, mask=Mask(causal=False), **fields)
    return Cross(attention=spec)


class CrossLayer(AttentionLayer):
    """`layer(x, positions, segments, context) -> y`. Its projections are those of attention."""

    def __call__(  # type: ignore[override]
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], segments: Int[Array, "B L"], context: Any
    ) -> Float[Array, "B L D"]:
        q_BLHP, asked = self.queries(x, positions), self._asked(positions, segments)
        if isinstance(context, Slots):
            return self.out(attention_decode.attend(q_BLHP, (context,), **asked))
        k_BSKP, v_BSKP = self.keys(context.h, context.positions), self.value(context.h)
        ids = {"k_positions": context.positions, "k_segments": context.segments}
        return self.out(attention.attend(q_BLHP, k_BSKP, v_BSKP, **ids, **asked))

    def slots(self, context: Context, dtype: Any) -> Slots:
        """The context's keys and values, made once for all tokens that will read them."""
        k_BSKP, v_BSKP = self.keys(context.h, context.positions), self.value(context.h)
        return kv.slots(k_BSKP, v_BSKP, context.positions, context.segments, dtype)
