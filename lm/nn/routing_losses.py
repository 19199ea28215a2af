"""What keeps a router sound: losses that spread the load over the experts, and one that keeps its scores small."""

from __future__ import annotations

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from lm.config import ConfigError, config
from lm.nn.aux import Aux, pooled
from lm.nn.routing import Routed, Routing


class RoutingLoss(abc.ABC):
    """One entry of `MoE.losses`. Averages are over all tokens of the batch, padding among them."""

    reads: ClassVar[tuple[str, ...]]  # of what a routing gives
    weight: float

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ConfigError(f"weight={self.weight} must be positive; leave a loss of weight 0 out of MoE.losses")

    def check(self, routing: Routing) -> None:
        """Raises ConfigError if the routing has nothing for it."""
        if missing := [name for name in self.reads if name not in routing.gives]:
            mine, its = type(self).__name__, type(routing).__name__
            raise ConfigError(
                f"losses: {mine} works on the router's {missing[0]}, which {its} doesn't have; leave it out"
            )

    def __call__(self, routed: Routed, experts: int) -> Aux:
        """Its term of the loss, and its unweighted value as a metric."""
        return pooled(lambda means: self.of(means, experts), self.means(routed, experts))

    @abc.abstractmethod
    def means(self, routed: Routed, experts: int) -> tuple[jax.Array, ...]:
        """Averages over the batch."""

    @abc.abstractmethod
    def of(self, means: tuple[jax.Array, ...], experts: int) -> Aux:
        """What is said of those."""


@config
class LoadBalance(RoutingLoss):
    """weight E sum_e f_e P_e, of the share f_e of all choices that fall on e and e's mean probability P_e.

    Fedus et al. 2021, equation 4. With k choices a token f is their average, so that balance is 1 whatever k is
    (transformers adds them up instead: its value is k times this one).
    """

    reads = ("load", "probs")
    weight: float = 0.01

    def means(self, routed: Routed, experts: int) -> tuple[jax.Array, ...]:
        assert routed.probs is not None
        return routed.by.load(experts).mean(axis=0), routed.probs.mean(axis=(0, 1))

    def of(self, means: tuple[jax.Array, ...], experts: int) -> Aux:
        load_E, probs_E = means
        value = experts * jnp.sum(load_E * probs_E)
        return Aux(self.weight * value, {"moe/balance": value})


@config
class SequenceBalance(RoutingLoss):
    """`LoadBalance` inside each row, averaged over rows (DeepSeek-V3, equations 17-20)."""

    reads = ("load", "probs")
    weight: float = 1e-4

    def means(self, routed: Routed, experts: int) -> tuple[jax.Array, ...]:
        assert routed.probs is not None
        return (experts * jnp.mean(jnp.sum(routed.by.load(experts) * routed.probs.mean(axis=1), axis=-1)),)

    def of(self, means: tuple[jax.Array, ...], experts: int) -> Aux:
        (value,) = means
        return Aux(self.weight * value, {"moe/sequence_balance": value})


@config
class RouterZ(RoutingLoss):
    """weight times the mean of (log sum_e exp logit_e)^2 (Zoph et al. 2022, equation 5)."""

    reads = ("logits",)
    weight: float = 1e-3

    def means(self, routed: Routed, experts: int) -> tuple[jax.Array, ...]:
        assert routed.logits is not None
        return (jnp.mean(jnp.square(jax.nn.logsumexp(routed.logits, axis=-1))),)

    def of(self, means: tuple[jax.Array, ...], experts: int) -> Aux:
        (value,) = means
        return Aux(self.weight * value, {"moe/z": value})


@config
class LossFree(RoutingLoss):
    """Balance by the correction of the choice (Wang et al. 2024; DeepSeek-V3 2.1.2): b_e -= u sign(load_e - mean load).

    A term of value 0 whose gradient for b_e is weight sign(load_e - 1/E), and nothing else's. Plain SGD with learning
    rate 1 so does the paper's step with u = weight, or with learning rate u and weight 1. Adam divides by the
    gradient's size, so its step is about the learning rate times a running mean of the signs, whatever the weight is.
    Large weights have a price: the gradient's norm weight sqrt(E) counts when gradients are clipped by their global
    norm. Where a batch is accumulated part by part, the parts' signs are averaged.
    """

    reads = ("load", "bias")
    weight: float = 1e-3

    def means(self, routed: Routed, experts: int) -> tuple[jax.Array, ...]:
        assert routed.bias is not None
        return routed.by.load(experts).mean(axis=0), routed.bias

    def of(self, means: tuple[jax.Array, ...], experts: int) -> Aux:
        load_E, bias_E = means
        term = jnp.sum(jnp.sign(load_E - 1 / experts) * bias_E)
        return Aux(self.weight * (term - lax.stop_gradient(term)), {})
