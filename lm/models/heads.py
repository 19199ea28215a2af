"""Output layers other than a decoder's own: features of the hidden states, then one linear map.

`Headed(body=Encoder(...), head=MaskedLM())` is a model with the head on top; any head goes on any body.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, config
from lm.models.trunk import Trunk
from lm.nn.cost import Cost, dense
from lm.nn.feedforward import GELU, Activation
from lm.nn.linear import Linear
from lm.nn.norms import LayerNorm, Norm
from lm.nn.param import normal, param, zeros
from lm.shapes import Array, Float, Int


class Head(abc.ABC):
    """What is read off the hidden states. `classes(body)` numbers for each row of features that it makes."""

    @abc.abstractmethod
    def classes(self, body: Trunk) -> int: ...

    @abc.abstractmethod
    def build(self, body: Trunk, *, rngs: nnx.Rngs) -> HeadLayer: ...

    @abc.abstractmethod
    def cost(self, body: Trunk, length: int) -> Cost: ...


class HeadLayer(nnx.Module):
    """`features(h, segments)`, then the weight [C D] and bias [C] of a map from features to classes.

    weight None: the table of the tokens. maps False: the features are all there is.
    """

    weight: nnx.Param | None = None
    bias: nnx.Param | None = None
    maps: ClassVar[bool] = True

    def features(self, h: Float[Array, "B L D"], segments: Int[Array, "B L"]) -> jax.Array:
        return h


class Transform(nnx.Module):
    """norm(activation(W h + b))."""

    def __init__(
        self, inputs: int, outputs: int, activation: Activation, *, norm: Norm | None, bias: bool, rngs: nnx.Rngs
    ):
        self.dense = Linear({"embed": inputs}, {"embed_out": outputs}, bias=bias, rngs=rngs)
        self.activation = activation
        self.norm = None if norm is None else norm.build(outputs, rngs=rngs)

    def __call__(self, h: jax.Array) -> jax.Array:
        y = self.activation(self.dense(h))
        return y if self.norm is None else self.norm(y)


@config
class MaskedLM(Head):
    """Which token stands at each place (Devlin et al. 2018): a transform, then the embedding table and a bias.

    activation, norm and bias: of the transform. tied: the map to tokens is the embedding table.
    """

    activation: Activation = GELU(approximate=False)
    norm: Norm | None = LayerNorm(epsilon=1e-12)
    bias: bool = True
    tied: bool = True

    def classes(self, body: Trunk) -> int:
        return body.vocab

    def build(self, body: Trunk, *, rngs: nnx.Rngs) -> MaskedLMLayer:
        return MaskedLMLayer(self, body, rngs=rngs)

    def cost(self, body: Trunk, length: int) -> Cost:
        width = body.table_width
        own = body.rows * (1 if self.tied else 1 + width)
        table = Cost(params=own, embedding=own, active=own, flops=2 * length * width * body.vocab)
        total = dense(body.width, width, length, self.bias) + table
        return total if self.norm is None else total + self.norm.cost(width)


class MaskedLMLayer(HeadLayer):
    def __init__(self, spec: MaskedLM, body: Trunk, *, rngs: nnx.Rngs):
        width = body.table_width
        self.transform = Transform(body.width, width, spec.activation, norm=spec.norm, bias=spec.bias, rngs=rngs)
        table = normal(width**-0.5)
        self.weight = None if spec.tied else param(rngs, (body.rows, width), ("vocab", "embed"), table)
        self.bias = param(rngs, (body.rows,), ("vocab",), zeros)

    def features(self, h: Float[Array, "B L D"], segments: Int[Array, "B L"]) -> jax.Array:
        return self.transform(h)


class Pooling(abc.ABC):
    """From the vectors of a row's tokens to one: [B L D] and segments [B L], 0 for padding, to [B D]."""

    @abc.abstractmethod
    def __call__(self, h: jax.Array, segments: jax.Array) -> jax.Array: ...


@config
class First(Pooling):
    """The first token's ([CLS])."""

    def __call__(self, h: jax.Array, segments: jax.Array) -> jax.Array:
        at = jnp.argmax(segments != 0, axis=1)
        return jnp.take_along_axis(h, at[:, None, None], axis=1)[:, 0]


@config
class Last(Pooling):
    """The last token's that isn't padding."""

    def __call__(self, h: jax.Array, segments: jax.Array) -> jax.Array:
        at = h.shape[1] - 1 - jnp.argmax(segments[:, ::-1] != 0, axis=1)
        return jnp.take_along_axis(h, at[:, None, None], axis=1)[:, 0]


@config
class Mean(Pooling):
    """The mean over the tokens that aren't padding (Reimers and Gurevych 2019)."""

    def __call__(self, h: jax.Array, segments: jax.Array) -> jax.Array:
        real = (segments != 0)[..., None].astype(jnp.float32)
        total = jnp.sum(h.astype(jnp.float32) * real, axis=1)
        return (total / jnp.maximum(jnp.sum(real, axis=1), 1)).astype(h.dtype)


@config
class Classifier(Head):
    """One of `labels` classes for each row, or for each token with pooling=None (Devlin et al. 2018, 4).

    inner: activation of a layer from width to width before the last map; None: no such layer. inner_norm and
    inner_bias: of that layer. With labels=1 it is a number: a reward, or whether a token was replaced.
    """

    labels: int
    pooling: Pooling | None = First()
    inner: Activation | None = None
    inner_norm: Norm | None = None
    inner_bias: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        if self.labels < 1:
            raise ConfigError(f"labels={self.labels} must be at least 1")
        if self.inner is None and (self.inner_norm is not None or not self.inner_bias):
            raise ConfigError("inner_norm and inner_bias are of the inner layer; give inner its activation too")

    def classes(self, body: Trunk) -> int:
        return self.labels

    def build(self, body: Trunk, *, rngs: nnx.Rngs) -> ClassifierLayer:
        return ClassifierLayer(self, body.width, rngs=rngs)

    def cost(self, body: Trunk, length: int) -> Cost:
        rows = length if self.pooling is None else 1
        between = Cost() if self.inner is None else dense(body.width, body.width, rows, self.inner_bias)
        between += Cost() if self.inner_norm is None else self.inner_norm.cost(body.width)
        return between + dense(body.width, self.labels, rows, self.bias)


def token_classifier(labels: int) -> Classifier:
    """A class for each token, as for named entities."""
    return Classifier(labels=labels, pooling=None)


def span() -> Classifier:
    """Two numbers for each token: how well an answer starts there, and how well it ends there (SQuAD)."""
    return Classifier(labels=2, pooling=None)


def reward() -> Classifier:
    """One number for a row, read at its last token (Stiennon et al. 2020)."""
    return Classifier(labels=1, pooling=Last(), bias=False)


class ClassifierLayer(HeadLayer):
    def __init__(self, spec: Classifier, width: int, *, rngs: nnx.Rngs):
        self.spec = spec
        more = {"norm": spec.inner_norm, "bias": spec.inner_bias, "rngs": rngs}
        self.transform = None if spec.inner is None else Transform(width, width, spec.inner, **more)
        self.weight = param(rngs, (spec.labels, width), ("classes", "embed"), normal(width**-0.5))
        self.bias = param(rngs, (spec.labels,), ("classes",), zeros) if spec.bias else None

    def features(self, h: Float[Array, "B L D"], segments: Int[Array, "B L"]) -> jax.Array:
        read = h if self.spec.pooling is None else self.spec.pooling(h, segments)
        return read if self.transform is None else self.transform(read)


@config
class Embedding(Head):
    """A row's vector [B D], of length 1 where `normalize` says so (Reimers and Gurevych 2019)."""

    pooling: Pooling = Mean()
    normalize: bool = True

    def classes(self, body: Trunk) -> int:
        return body.width

    def build(self, body: Trunk, *, rngs: nnx.Rngs) -> EmbeddingLayer:
        return EmbeddingLayer(self)

    def cost(self, body: Trunk, length: int) -> Cost:
        return Cost()


class EmbeddingLayer(HeadLayer):
    maps = False

    def __init__(self, spec: Embedding):
        self.spec = spec

    def features(self, h: Float[Array, "B L D"], segments: Int[Array, "B L"]) -> jax.Array:
        pooled = self.spec.pooling(h, segments).astype(jnp.float32)
        return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True) if self.spec.normalize else pooled
