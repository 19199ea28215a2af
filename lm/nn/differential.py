"""Differential attention: what two maps of attention have in common is noise, and is subtracted."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, config
from lm.nn import cache as kv
from lm.nn.cost import Cost, dense, weights
from lm.nn.feedforward import to_residual
from lm.nn.kernels import attention, attention_decode, attention_mesh
from lm.nn.linear import Linear
from lm.nn.mask import Mask
from lm.nn.mixer import Mixer, MixerLayer
from lm.nn.norms import Norm, RMSNorm
from lm.nn.param import normal, param
from lm.nn.relative import RelativePosition
from lm.nn.rope import RoPE
from lm.shapes import Array, Float, Int
from lm.sharding import Layout


@config
class Differential(Mixer):
    """(softmax(q1 k1) - lambda softmax(q2 k2)) v in every head (Ye et al. 2024, "Differential Transformer", section 2).

    A head has two queries and keys of head_width and a value of twice that; head_width None: width / (2 heads), so
    that `heads` is half of what attention of this width would have. norm: of what a head has read, then times
    1 - lambda_init. lambda_init: where lambda starts; the paper's constant, about as
    good in its ablations as one by depth.
    """

    heads: int
    kv_heads: int
    head_width: int | None = None
    position: RelativePosition = RoPE()
    mask: Mask = Mask()
    norm: Norm = RMSNorm(epsilon=1e-5)
    lambda_init: float = 0.8

    def __post_init__(self) -> None:
        if self.kv_heads < 1 or self.heads % self.kv_heads or self.heads < 1:
            raise ConfigError(f"kv_heads={self.kv_heads} must divide heads={self.heads}, both at least 1")
        if not 0 <= self.lambda_init < 1:
            raise ConfigError(f"lambda_init={self.lambda_init} must be from 0 to below 1: 1 would scale heads to 0")

    def width_of_head(self, width: int) -> int:
        if self.head_width is None and width % (2 * self.heads):
            raise ConfigError(f"2 x heads={self.heads} must divide width={width}, or give head_width")
        return self.head_width or width // (2 * self.heads)

    def check_split(self, where: Layout) -> None:
        attention_mesh.check_heads(where, self.heads)

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> DifferentialLayer:
        return DifferentialLayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        h, k, p = 2 * self.heads, 2 * self.kv_heads, self.width_of_head(width)
        total = dense(width, h * p, length) + dense(width, k * p, length) + dense(width, k * p, length)
        total += dense(h * p, width, length) + self.norm.cost(2 * p) + weights(4 * p)
        scores = Cost(flops=self.mask.pairs(length) * self.pair_flops(width))
        return total + scores + Cost(cache=2 * self.mask.kept(length) * k * p) + self.position.cost(self.heads, p)

    def pair_flops(self, width: int) -> int:
        """FLOPs for each query and key that it sees: two maps, each with a score and the whole value."""
        p = self.width_of_head(width)
        return 2 * self.heads * (2 * p + 2 * (2 * p))


class DifferentialLayer(MixerLayer):
    """Queries and keys are [B L 2H P]: those of the first map for all heads, then those of the second."""

    def __init__(self, spec: Differential, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        self.head_width = p = spec.width_of_head(width)
        stream, outputs = {"embed": width}, {"heads": spec.heads, "head_dim": 2 * p}
        self.query = Linear(stream, {"heads": 2 * spec.heads, "head_dim": p}, rngs=rngs)
        self.key = Linear(stream, {"kv_heads": 2 * spec.kv_heads, "head_dim": p}, rngs=rngs)
        self.value = Linear(stream, {"kv_heads": spec.kv_heads, "head_dim": 2 * p}, rngs=rngs)
        self.out = Linear(outputs, stream, scale=to_residual(depth), rngs=rngs)
        self.norm = spec.norm.build(2 * p, axis="head_dim", rngs=rngs)
        self.position = spec.position.build(spec.heads, p, rngs=rngs)
        vectors = (param(rngs, (p,), ("head_dim",), normal(0.1)) for _ in range(4))
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = vectors

    def __call__(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L"], segments: Int[Array, "B L"], cache: Any = None
    ) -> tuple[Float[Array, "B L D"], Any]:
        q, k = (self.position.rotate(project(x), positions) for project in (self.query, self.key))
        v, K = self.value(x), self.spec.kv_heads
        asked = {"mask": self.spec.mask, "q_positions": positions, "q_segments": segments}
        asked |= {"bias": self.position.bias, "scale": self.position.scale(self.head_width)}
        if cache is None:
            ids = {"k_positions": positions, "k_segments": segments, "ordered": True}
            maps = zip(jnp.split(q, 2, axis=2), jnp.split(k, 2, axis=2), strict=True)
            first, second = (attention.attend(q_i, k_i, v, **ids, **asked) for q_i, k_i in maps)
        else:
            cache, parts = cache.extended(kv.slots(k, v, positions, segments, cache.dtype))
            halves = [[part._replace(k=part.k[:, i : i + K]) for part in parts] for i in (0, K)]
            maps = zip(jnp.split(q, 2, axis=2), halves, strict=True)
            first, second = (attention_decode.attend(q_i, parts_i, **asked) for q_i, parts_i in maps)
        y = self.norm(first - self.weight().astype(second.dtype) * second)  # type: ignore[operator]
        return self.out((1 - self.spec.lambda_init) * y), cache

    def weight(self) -> Float[Array, ""]:
        """lambda, the share of the second map that is subtracted (equation 2)."""
        q1, k1, q2, k2 = (p[...] for p in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2))
        return jnp.exp(jnp.sum(q1 * k1)) - jnp.exp(jnp.sum(q2 * k2)) + self.spec.lambda_init

    def init_cache(self, batch: int, length: int, dtype: Any) -> kv.KVCache:
        size, ring = self.spec.mask.slots(length)
        values = self.spec.kv_heads, 2 * self.head_width
        return kv.empty(batch, size, 2 * self.spec.kv_heads, self.head_width, dtype, ring=ring, values=values)
