"""Grouped-query attention: MHA, GQA and MQA as one layer."""

from __future__ import annotations

from typing import Any

from flax import nnx

from lm import sharding
from lm.config import ConfigError, config
from lm.nn import cache as kv
from lm.nn import head_norm
from lm.nn.cost import Cost, dense
from lm.nn.feedforward import to_residual
from lm.nn.head_norm import HeadNorm
from lm.nn.kernels import attention, attention_decode, attention_mesh, attention_plain
from lm.nn.linear import Linear
from lm.nn.mask import Mask
from lm.nn.mixer import Mixer, MixerLayer
from lm.nn.relative import RelativeLayer, RelativePosition
from lm.nn.rope import RoPE
from lm.shapes import Array, Float, Int
from lm.sharding import Layout


@config
class Attention(Mixer):
    """Scaled dot-product attention: `heads` query heads share `kv_heads` keys and values (Ainslie et al. 2023).

    kv_heads == heads is MHA, kv_heads == 1 is MQA. head_width None: width / heads. scale None: head_width^-0.5,
    times what a YaRN position asks.
    mask: which keys a query sees. qk_norm: a norm on queries and keys (Dehghani et al. 2023), each head alone or
    `AcrossHeads`. softcap: scores become softcap tanh(score / softcap) (Gemma 2). bias: on q, k and v; output_bias:
    after them.
    """

    heads: int
    kv_heads: int
    head_width: int | None = None
    position: RelativePosition | None = RoPE()
    mask: Mask = Mask()
    qk_norm: HeadNorm | None = None
    softcap: float | None = None
    scale: float | None = None
    bias: bool = False
    output_bias: bool = False

    def __post_init__(self) -> None:
        if self.heads < 1 or self.kv_heads < 1:
            raise ConfigError(f"heads={self.heads} and kv_heads={self.kv_heads} must be at least 1")
        if self.heads % self.kv_heads:
            raise ConfigError(f"kv_heads={self.kv_heads} must divide heads={self.heads}")
        if self.head_width is not None and self.head_width < 1:
            raise ConfigError(f"head_width={self.head_width} must be at least 1, or None for width / heads")
        if self.softcap is not None and self.softcap <= 0:
            raise ConfigError(f"softcap={self.softcap} must be positive, or None for no cap")

    def width_of_head(self, width: int) -> int:
        if self.head_width is not None:
            return self.head_width
        if width % self.heads:
            raise ConfigError(f"heads={self.heads} must divide width={width}, or give head_width")
        return width // self.heads

    def check_split(self, where: Layout) -> None:
        attention_mesh.check_heads(where, self.heads)

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> AttentionLayer:
        return AttentionLayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        p = self.width_of_head(width)
        q = dense(width, self.heads * p, length, self.bias)
        k = dense(width, self.kv_heads * p, length, self.bias)
        out = dense(self.heads * p, width, length, self.output_bias)
        scores = Cost(flops=self.mask.pairs(length) * self.pair_flops(width))
        total = q + k + k + out + scores + Cost(cache=2 * self.mask.kept(length) * self.kv_heads * p)
        total += self.norms_cost(p)
        return total if self.position is None else total + self.position.cost(self.heads, p)

    def norms_cost(self, head_width: int) -> Cost:
        """Of the norms of queries and keys."""
        return sum((head_norm.cost(self.qk_norm, n, head_width) for n in (self.heads, self.kv_heads)), Cost())

    def pair_flops(self, width: int) -> int:
        """FLOPs for each query and key that it sees: a score and a share of the value in every head."""
        return 4 * self.heads * self.width_of_head(width)


def mha(heads: int, **fields: Any) -> Attention:
    """Multi-head attention (Vaswani et al. 2017): each query head has its own key and value."""
    return Attention(heads=heads, kv_heads=heads, **fields)


def gqa(heads: int, kv_heads: int, **fields: Any) -> Attention:
    """Grouped-query attention (Ainslie et al. 2023)."""
    return Attention(heads=heads, kv_heads=kv_heads, **fields)


def mqa(heads: int, **fields: Any) -> Attention:
    """Multi-query attention (Shazeer 2019): one key and value for all query heads."""
    return Attention(heads=heads, kv_heads=1, **fields)


class AttentionLayer(MixerLayer):
    def __init__(self, spec: Attention, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        self.head_width = p = spec.width_of_head(width)
        heads, kv_heads = {"heads": spec.heads, "head_dim": p}, {"kv_heads": spec.kv_heads, "head_dim": p}
        self.query = Linear({"embed": width}, heads, bias=spec.bias, rngs=rngs)
        self.key = Linear({"embed": width}, kv_heads, bias=spec.bias, rngs=rngs)
        self.value = Linear({"embed": width}, kv_heads, bias=spec.bias, rngs=rngs)
        self.out = Linear(heads, {"embed": width}, bias=spec.output_bias, scale=to_residual(depth), rngs=rngs)
        self.query_norm = head_norm.build(spec.qk_norm, heads, rngs)
        self.key_norm = head_norm.build(spec.qk_norm, kv_heads, rngs)
        self.position = RelativeLayer() if spec.position is None else spec.position.build(spec.heads, p, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], segments: Int[Array, "B L"], cache: Any = None
    ) -> tuple[Float[Array, "B L D"], Any]:
        (q_BLHP, k_BLKP), v_BLKP = self.queries_and_keys(x, positions), self.value(x)
        asked = self._asked(positions, segments)
        if cache is None:
            y_BLHP = attention.attend(
                q_BLHP, k_BLKP, v_BLKP, k_positions=positions, k_segments=segments, ordered=True, **asked
            )
        else:
            cache, parts = cache.extended(kv.slots(k_BLKP, v_BLKP, positions, segments, cache.dtype))
            y_BLHP = attention_decode.attend(q_BLHP, parts, **asked)
        return self.out(y_BLHP), cache

    def pattern(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], segments: Int[Array, "B L"]
    ) -> Float[Array, "B H L S"]:
        q_BLHP, k_BLKP = self.queries_and_keys(x, positions)
        asked = self._asked(positions, segments)
        return attention_plain.probabilities(q_BLHP, k_BLKP, k_positions=positions, k_segments=segments, **asked)

    def queries_and_keys(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"]
    ) -> tuple[Float[Array, "B L H P"], Float[Array, "B L K P"]]:
        """As they are compared: normalised and turned to their positions."""
        return self.queries(x, positions), self.keys(x, positions)

    def queries(self, x: Float[Array, "B L D"], positions: Int[Array, "B L"]) -> Float[Array, "B L H P"]:
        q_BLHP = self.query(x) if self.query_norm is None else self.query_norm(self.query(x))
        return sharding.constrain(self.position.rotate(q_BLHP, positions), "batch", "length", "heads", None)

    def keys(self, x: Float[Array, "B S D"], positions: Int[Array, "B S"]) -> Float[Array, "B S K P"]:
        k_BSKP = self.key(x) if self.key_norm is None else self.key_norm(self.key(x))
        return self.position.rotate(k_BSKP, positions)

    def _asked(self, positions: Int[Array, "B L"], segments: Int[Array, "B L"]) -> dict[str, Any]:
        """What every form of attention is told besides queries, keys and values."""
        return {
            "mask": self.spec.mask,
            "q_positions": positions,
            "q_segments": segments,
            "bias": self.position.bias,
            "scale": self.position.scale(self.head_width) if self.spec.scale is None else self.spec.scale,
            "softcap": self.spec.softcap,
        }

    def init_cache(self, batch: int, length: int, dtype: Any) -> kv.KVCache:
        """A layer of limited reach keeps a ring of it; others keep all `length` tokens, and give NaN beyond them."""
        size, ring = self.spec.mask.slots(length)
        return kv.empty(batch, size, self.spec.kv_heads, self.head_width, dtype, ring=ring)
