"""Multi-head latent attention: keys and values of all heads from one small vector a token, which alone is cached."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from lm import sharding
from lm.config import ConfigError, config
from lm.nn import cache as kv
from lm.nn.cost import Cost, dense
from lm.nn.feedforward import to_residual
from lm.nn.kernels import attention, attention_decode, attention_mesh, attention_plain
from lm.nn.kernels.attention_decode import Slots
from lm.nn.linear import Linear
from lm.nn.mask import Mask
from lm.nn.mixer import Mixer, MixerLayer
from lm.nn.norms import Norm, RMSNorm
from lm.nn.relative import RelativePosition
from lm.nn.rope import RoPE
from lm.shapes import Array, Float, Int
from lm.sharding import Layout


@config
class MLA(Mixer):
    """Attention whose keys and values are linear in a latent vector a token (DeepSeek-AI 2024, V2, section 2.1).

    kv_rank: the latent's width. q_rank: that of the queries' own latent; None: queries straight from the stream.
    A head's query and key are a part of nope_width, made from the latents, and a part of rope_width that is turned to
    its position, whose key is made from the stream and shared by all heads. value_width: of a head's value.
    norm: of the latents. scale None: (nope_width + rope_width)^-0.5, times what a YaRN position asks.
    bias: on the maps to the latents and the shared key; output_bias: after all heads.
    """

    heads: int
    kv_rank: int
    q_rank: int | None = None
    nope_width: int
    rope_width: int
    value_width: int
    position: RelativePosition = RoPE()
    mask: Mask = Mask()
    norm: Norm = RMSNorm()
    scale: float | None = None
    bias: bool = False
    output_bias: bool = False

    def __post_init__(self) -> None:
        for name in ("heads", "kv_rank", "q_rank", "nope_width", "rope_width", "value_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"MLA: {name}={value} must be at least 1")

    @property
    def key_width(self) -> int:
        return self.nope_width + self.rope_width

    def check_split(self, where: Layout) -> None:
        attention_mesh.check_heads(where, self.heads)

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> MLALayer:
        return MLALayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        """Of the expanded form, which training uses."""
        h, kept = self.heads, self.mask.kept(length)
        total = dense(width, self.kv_rank + self.rope_width, length, self.bias) + self.norm.cost(self.kv_rank)
        total += dense(self.kv_rank, h * (self.nope_width + self.value_width), length)
        if self.q_rank is None:
            total += dense(width, h * self.key_width, length)
        else:
            total += dense(width, self.q_rank, length, self.bias) + self.norm.cost(self.q_rank)
            total += dense(self.q_rank, h * self.key_width, length)
        total += dense(h * self.value_width, width, length, self.output_bias)
        pairs = self.mask.pairs(length) * self.pair_flops(width)
        return total + Cost(flops=pairs, cache=kept * (self.kv_rank + self.rope_width)) + self.position_cost()

    def pair_flops(self, width: int) -> int:
        """FLOPs for each query and key that it sees."""
        return 2 * self.heads * (self.key_width + self.value_width)

    def position_cost(self) -> Cost:
        return self.position.cost(self.heads, self.rope_width)


class MLALayer(MixerLayer):
    """Two forms of one function. Expanded: keys and values of every head are made from the latents, as in training.

    Absorbed: q (W c) = (q W) c, so queries go to the latent space instead, where all heads read the one latent as key
    and as value, and what they read is turned to values after it. Decoding takes the form with fewer FLOPs.
    """

    def __init__(self, spec: MLA, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        heads, stream, latent = {"heads": spec.heads}, {"embed": width}, {"kv_rank": spec.kv_rank}
        source = stream if spec.q_rank is None else {"q_rank": spec.q_rank}
        compressed = spec.q_rank is not None
        self.query_latent = Linear(stream, source, bias=spec.bias, rngs=rngs) if compressed else None
        self.query_norm = spec.norm.build(source["q_rank"], axis="q_rank", rngs=rngs) if compressed else None
        self.query = Linear(source, {**heads, "head_dim": spec.key_width}, rngs=rngs)
        self.latent = Linear(stream, latent, bias=spec.bias, rngs=rngs)
        self.latent_norm = spec.norm.build(spec.kv_rank, axis="kv_rank", rngs=rngs)
        self.key_rope = Linear(stream, {"head_dim": spec.rope_width}, bias=spec.bias, rngs=rngs)
        self.key = Linear(latent, {**heads, "head_dim": spec.nope_width}, rngs=rngs)
        self.value = Linear(latent, {**heads, "head_dim": spec.value_width}, rngs=rngs)
        outputs = {**heads, "head_dim": spec.value_width}
        self.out = Linear(outputs, stream, bias=spec.output_bias, scale=to_residual(depth), rngs=rngs)
        self.position = spec.position.build(spec.heads, spec.rope_width, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], segments: Int[Array, "B L"], cache: Any = None
    ) -> tuple[Float[Array, "B L D"], Any]:
        q_BLHP, c_BL1C = self.queries(x, positions), self.compressed(x, positions)
        asked = self._asked(positions, segments)
        if cache is None:
            k_BSHP, v_BSHV = self._expanded(c_BL1C)
            ids = {"k_positions": positions, "k_segments": segments}
            y_BLHV = attention.attend(q_BLHP, k_BSHP, v_BSHV, **ids, **asked, ordered=True)
        else:
            nothing = c_BL1C[..., :0]  # values are part of the keys
            cache, parts = cache.extended(kv.slots(c_BL1C, nothing, positions, segments, cache.dtype))
            absorbing = self._absorbing_is_cheaper(x.shape[1], sum(part.count for part in parts))
            read = self.read_absorbed if absorbing else self.read_expanded
            y_BLHV = read(q_BLHP, parts, asked)
        return self.out(y_BLHV), cache

    def pattern(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], segments: Int[Array, "B L"]
    ) -> Float[Array, "B H L S"]:
        q_BLHP, (k_BSHP, _) = self.queries(x, positions), self._expanded(self.compressed(x, positions))
        asked = self._asked(positions, segments)
        return attention_plain.probabilities(q_BLHP, k_BSHP, k_positions=positions, k_segments=segments, **asked)

    def queries(self, x: Float[Array, "B L D"], positions: Int[Array, "B L"]) -> Float[Array, "B L H P"]:
        """Their part without a position, then the turned one."""
        if self.query_latent is not None and self.query_norm is not None:
            x = self.query_norm(self.query_latent(x))
        nope, rope = jnp.split(self.query(x), [self.spec.nope_width], axis=-1)
        q_BLHP = jnp.concatenate([nope, self.position.rotate(rope, positions)], axis=-1)
        return sharding.constrain(q_BLHP, "batch", "length", "heads", None)

    def compressed(self, x: Float[Array, "B L D"], positions: Int[Array, "B L"]) -> Float[Array, "B L 1 C"]:
        """What is kept of a token, as one head: the normalised latent, then the turned key."""
        rope = self.position.rotate(self.key_rope(x)[:, :, None], positions)
        return jnp.concatenate([self.latent_norm(self.latent(x))[:, :, None], rope], axis=-1)

    def _expanded(self, c_BS1C: Float[Array, "B S 1 C"]) -> tuple[Float[Array, "B S H P"], Float[Array, "B S H V"]]:
        latent, rope = jnp.split(c_BS1C, [self.spec.kv_rank], axis=-1)
        nope = self.key(latent[:, :, 0])
        rope = jnp.broadcast_to(rope, (*nope.shape[:3], self.spec.rope_width))
        return jnp.concatenate([nope, rope], axis=-1), self.value(latent[:, :, 0])

    def read_expanded(
        self, q_BLHP: Float[Array, "B L H P"], parts: tuple[Slots, ...], asked: dict[str, Any]
    ) -> Float[Array, "B L H V"]:
        c_BS1C = jnp.concatenate([part.k for part in parts], axis=3).transpose(0, 3, 1, 2)
        k_BSHP, v_BSHV = self._expanded(c_BS1C)
        ids = {f"k_{name}": jnp.concatenate([getattr(part, name) for part in parts], axis=1) for name in IDS}
        return attention.attend(q_BLHP, k_BSHP, v_BSHV, **ids, **asked)

    def read_absorbed(
        self, q_BLHP: Float[Array, "B L H P"], parts: tuple[Slots, ...], asked: dict[str, Any]
    ) -> Float[Array, "B L H V"]:
        nope, rope = jnp.split(q_BLHP, [self.spec.nope_width], axis=-1)
        latent = jnp.einsum("BLHP,CHP->BLHC", nope, self.key.weight[...].astype(nope.dtype))
        q_BLHC = jnp.concatenate([latent, rope], axis=-1)
        parts = tuple(part._replace(v=part.k[:, :, : self.spec.kv_rank].swapaxes(2, 3)) for part in parts)
        read_BLHC = attention_decode.attend(q_BLHC, parts, **asked)
        return jnp.einsum("BLHC,CHV->BLHV", read_BLHC, self.value.weight[...].astype(read_BLHC.dtype))

    def _absorbing_is_cheaper(self, queries: int, keys: int) -> bool:
        spec = self.spec
        expansion = spec.kv_rank * (spec.nope_width + spec.value_width)  # of a key, or of a query
        more = 2 * spec.kv_rank - spec.nope_width - spec.value_width  # of a pair, in the latent space
        return queries * expansion + queries * keys * more < keys * expansion

    def _asked(self, positions: Int[Array, "B L"], segments: Int[Array, "B L"]) -> dict[str, Any]:
        """What every form of attention is told besides queries, keys and values."""
        scale = self.position.scale(self.spec.key_width) if self.spec.scale is None else self.spec.scale
        told = {"mask": self.spec.mask, "bias": self.position.bias, "scale": scale, "softcap": None}
        return told | {"q_positions": positions, "q_segments": segments}

    def init_cache(self, batch: int, length: int, dtype: Any) -> kv.KVCache:
        """The latents and turned keys of all tokens; of limited reach, a ring of these."""
        size, ring = self.spec.mask.slots(length)
        return kv.empty(batch, size, 1, self.spec.kv_rank + self.spec.rope_width, dtype, ring=ring, values=(1, 0))


IDS = ("positions", "segments")
