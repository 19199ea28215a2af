"""Norms of queries and keys: each head alone, or all heads together."""

from __future__ import annotations

import jax
from flax import nnx

from lm.config import config
from lm.nn.cost import Cost
from lm.nn.linear import Dims
from lm.nn.norms import Norm, RMSNorm


@config
class AcrossHeads:
    """`norm` over the whole projection, all heads as one vector (OLMo 2, Team OLMo 2025)."""

    norm: Norm = RMSNorm()


HeadNorm = Norm | AcrossHeads  # a norm alone is over each head's width, its scale shared by the heads


def build(norm: HeadNorm | None, heads: Dims, rngs: nnx.Rngs) -> nnx.Module | None:
    """The layer for an array [..., *heads], where `heads` are the axes and sizes of the heads and of their width."""
    if norm is None:
        return None
    (axis, count), (width_axis, width) = heads.items()
    if isinstance(norm, AcrossHeads):
        return AcrossHeadsLayer(norm.norm.build(count * width, axis=axis, rngs=rngs))
    return norm.build(width, axis=width_axis, rngs=rngs)


def cost(norm: HeadNorm | None, heads: int, width: int) -> Cost:
    """Of so many heads of this width."""
    if norm is None:
        return Cost()
    return norm.norm.cost(heads * width) if isinstance(norm, AcrossHeads) else norm.cost(width)


class AcrossHeadsLayer(nnx.Module):
    def __init__(self, norm: nnx.Module):
        self.norm = norm

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(x.reshape(*x.shape[:-2], -1)).reshape(x.shape)  # type: ignore[operator]
