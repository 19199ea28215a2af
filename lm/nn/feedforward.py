"""Position-wise feed-forward layers, plain and gated, and their activations."""

from __future__ import annotations

import abc
import math

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import ConfigError, config
from lm.nn.aux import Aux
from lm.nn.cost import Cost, dense
from lm.nn.kernels.recompute import recomputed
from lm.nn.linear import Linear
from lm.shapes import Array, Float
from lm.sharding import Layout


class Activation(abc.ABC):
    """An elementwise function."""

    @abc.abstractmethod
    def __call__(self, x: jax.Array) -> jax.Array: ...


@config
class ReLU(Activation):
    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x)


@config
class SquaredReLU(Activation):
    """max(x, 0)^2 (So et al. 2021, Primer)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.square(jax.nn.relu(x))


@config
class GELU(Activation):
    """x Phi(x) (Hendrycks and Gimpel 2016), exactly or by the tanh approximation."""

    approximate: bool = True

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.gelu(x, approximate=self.approximate)


@config
class SiLU(Activation):
    """x sigmoid(x)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.silu(x)


@config
class Sigmoid(Activation):
    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(x)


@config
class Tanh(Activation):
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(x)


class FeedForward(abc.ABC):
    """What follows the mixer in a block. `ff(x) -> (y, aux)`."""

    @abc.abstractmethod
    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> nnx.Module: ...

    @abc.abstractmethod
    def cost(self, width: int, length: int) -> Cost: ...

    def check_split(self, where: Layout) -> None:  # noqa: B027 -- most work token by token
        """Raises ShardingError where the layer can't be split so."""


@config
class MLP(FeedForward):
    """down(activation(up(x)))."""

    hidden: int
    activation: Activation = GELU()
    bias: bool = False

    def __post_init__(self) -> None:
        _check_hidden(self.hidden)

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> MLPLayer:
        return MLPLayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        return dense(width, self.hidden, length, self.bias) + dense(self.hidden, width, length, self.bias)


@config
class GatedMLP(FeedForward):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020)."""

    hidden: int
    activation: Activation = SiLU()
    bias: bool = False

    def __post_init__(self) -> None:
        _check_hidden(self.hidden)

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> GatedMLPLayer:
        return GatedMLPLayer(self, width, rngs=rngs, depth=depth)

    def gated(self, gate: Float[Array, "*rows F"], up: Float[Array, "*rows F"]) -> Float[Array, "*rows F"]:
        return self.activation(gate) * up

    def cost(self, width: int, length: int) -> Cost:
        up = dense(width, self.hidden, length, self.bias)
        return up + up + dense(self.hidden, width, length, self.bias)


def _check_hidden(hidden: int) -> None:
    if hidden < 1:
        raise ConfigError(f"hidden={hidden} must be at least 1")


def glu(hidden: int) -> GatedMLP:
    return GatedMLP(hidden=hidden, activation=Sigmoid())


def reglu(hidden: int) -> GatedMLP:
    return GatedMLP(hidden=hidden, activation=ReLU())


def geglu(hidden: int) -> GatedMLP:
    return GatedMLP(hidden=hidden, activation=GELU())


def swiglu(hidden: int) -> GatedMLP:
    return GatedMLP(hidden=hidden, activation=SiLU())


class MLPLayer(nnx.Module):
    def __init__(self, spec: MLP, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        self.up = Linear({"embed": width}, {"mlp": spec.hidden}, bias=spec.bias, rngs=rngs)
        self.down = Linear({"mlp": spec.hidden}, {"embed": width}, bias=spec.bias, scale=to_residual(depth), rngs=rngs)

    def __call__(self, x: Float[Array, "B L D"]) -> tuple[Float[Array, "B L D"], Aux]:
        return self.down(recomputed(self.spec.activation, self.up(x))), Aux()


class GatedMLPLayer(nnx.Module):
    def __init__(self, spec: GatedMLP, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        self.gate = Linear({"embed": width}, {"mlp": spec.hidden}, bias=spec.bias, rngs=rngs)
        self.up = Linear({"embed": width}, {"mlp": spec.hidden}, bias=spec.bias, rngs=rngs)
        self.down = Linear({"mlp": spec.hidden}, {"embed": width}, bias=spec.bias, scale=to_residual(depth), rngs=rngs)

    def __call__(self, x: Float[Array, "B L D"]) -> tuple[Float[Array, "B L D"], Aux]:
        return self.down(recomputed(self.spec.gated, self.gate(x), self.up(x))), Aux()


def to_residual(depth: int) -> float:
    """How much smaller to draw a projection onto the residual stream of `depth` layers (Radford et al. 2019, 2.3).

    A stack adds 2 depth such outputs, so that their sum starts at the variance of one.
    """
    return 1 / math.sqrt(2 * depth)
