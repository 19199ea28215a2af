"""Routers of a mixture of experts: which token goes to which expert, and with which weight."""

from __future__ import annotations

import abc
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from lm.config import ConfigError, config
from lm.nn.cost import Cost, dense, weights
from lm.nn.linear import Linear
from lm.nn.param import param, zeros
from lm.shapes import Array, Float, Int
from lm.sharding import Layout, ShardingError


class Choices(NamedTuple):
    """Every token's experts: expert [B L K] int32 without repetition, weight [B L K] float32."""

    expert: jax.Array
    weight: jax.Array

    def load(self, experts: int) -> Float[Array, "B E"]:
        """Each expert's share of a row's choices; 1 / E is balanced."""
        chosen = self.expert[..., None] == jnp.arange(experts)
        return jnp.mean(chosen, axis=(1, 2), dtype=jnp.float32)


class Slots(NamedTuple):
    """Every expert's tokens: token [B E C] int32, the index in the row, L for an empty slot; weight [B E C] float32."""

    token: jax.Array
    weight: jax.Array

    def load(self, experts: int) -> Float[Array, "B E"]:
        """As a router chooses them: all are full."""
        return jnp.full(self.token.shape[:2], 1 / experts, jnp.float32)


class Routed(NamedTuple):
    """What a router says of a batch.

    by: the assignment. probs [B L E]: scores as a distribution over experts; logits [B L E]; bias [E]: what is added to
    scores to choose. All float32, and None where the routing has no such thing.
    """

    by: Choices | Slots
    probs: jax.Array | None = None
    logits: jax.Array | None = None
    bias: jax.Array | None = None


class Routing(abc.ABC):
    """One alternative of `MoE.routing`. `router(x [B L D]) -> Routed`."""

    gives: ClassVar[tuple[str, ...]] = ("load", "probs", "logits")  # what a loss of the router can work on

    @abc.abstractmethod
    def check(self, experts: int) -> None:
        """Raises ConfigError if it can't route to so many experts."""

    @abc.abstractmethod
    def build(self, width: int, experts: int, *, rngs: nnx.Rngs) -> nnx.Module: ...

    @abc.abstractmethod
    def cost(self, width: int, experts: int, length: int) -> Cost:
        """Of the router alone."""

    @abc.abstractmethod
    def per_token(self) -> int | float:
        """Experts that compute a token, on average."""

    def slots(self, experts: int, length: int) -> int | None:
        """Tokens that each expert takes of a row of `length`; None where it takes whatever is sent to it."""
        return None

    def check_split(self, where: Layout) -> None:
        """Raises ShardingError where the layer can't be split so."""
        if self.slots(1, 1) is not None:
            refuse_parts_of_rows(self, where)


class Scored(Routing):
    """A routing by learned scores, a linear function of the token in float32 (Fedus et al. 2021, 2.4)."""

    @property
    def score_bias(self) -> bool:
        return False

    @abc.abstractmethod
    def route(self, logits: Float[Array, "B L E"], bias: Float[Array, "E"] | None) -> Routed: ...

    def build(self, width: int, experts: int, *, rngs: nnx.Rngs) -> Router:
        return Router(self, width, experts, rngs=rngs)

    def cost(self, width: int, experts: int, length: int) -> Cost:
        return dense(width, experts, length, self.score_bias) + weights(experts if "bias" in self.gives else 0)


class Router(nnx.Module):
    """correction: added to the scores for the choice alone, so no gradient reaches it but that of `LossFree`."""

    def __init__(self, spec: Scored, width: int, experts: int, *, rngs: nnx.Rngs):
        self.spec = spec
        self.score = Linear({"embed": width}, {"expert": experts}, bias=spec.score_bias, precise=True, rngs=rngs)
        self.correction = param(rngs, (experts,), ("expert",), zeros, precise=True) if "bias" in spec.gives else None

    def __call__(self, x: Float[Array, "B L D"]) -> Routed:
        logits = self.score(x.astype(jnp.float32))
        return self.spec.route(logits, None if self.correction is None else self.correction[...].astype(jnp.float32))


def refuse_parts_of_rows(config: object, where: Layout) -> None:
    """Raises ShardingError where a row is split, which this component of a layer of experts counts as one."""
    if (ways := where.ways("length")) > 1:
        name = type(config).__name__
        raise ShardingError(f"{name} shares out a row's tokens and can't split it {ways} ways; leave sequence= out")


def _best(scores: Float[Array, "*rows E"], k: int) -> Int[Array, "*rows K"]:
    """The k largest along the last axis, the earlier of equals first. Which they are has no derivative."""
    return lax.top_k(lax.stop_gradient(scores), k)[1]


def _check_k(k: int, experts: int) -> None:
    if not 1 <= k <= experts:
        raise ConfigError(f"k={k} experts of {experts} can't be chosen; k is from 1 to experts")


@config
class SoftmaxTopK(Scored):
    """The k likeliest of a softmax over all experts (Shazeer et al. 2017; Qwen2-MoE, OLMoE).

    normalized: the weights of the chosen are made to add up to 1. They are then the softmax over the chosen alone,
    so Mixtral (which normalises) and GraniteMoE (which takes the softmax after the choice) are the same function.
    bias: of the scores.
    """

    k: int
    normalized: bool = True
    bias: bool = False

    @property
    def score_bias(self) -> bool:
        return self.bias

    def check(self, experts: int) -> None:
        _check_k(self.k, experts)

    def per_token(self) -> int | float:
        return self.k

    def route(self, logits: Float[Array, "B L E"], bias: Float[Array, "E"] | None) -> Routed:
        probs = jax.nn.softmax(logits)
        expert = _best(logits, self.k)
        weight = jnp.take_along_axis(probs, expert, axis=-1)
        if self.normalized:
            weight = jax.nn.softmax(jnp.take_along_axis(logits, expert, axis=-1))
        return Routed(Choices(expert, weight), probs, logits)


def switch(bias: bool = False) -> SoftmaxTopK:
    """The likeliest expert, its output times its probability (Fedus et al. 2021, Switch)."""
    return SoftmaxTopK(k=1, normalized=False, bias=bias)


@config
class GroupLimit:
    """Only experts of the `chosen` best of so many `groups` may be chosen (DeepSeek-V3, 2.1.2).

    A group is a run of neighbours (a node's experts); its score is the sum of its two highest.
    """

    groups: int
    chosen: int

    def __post_init__(self) -> None:
        if not 1 <= self.chosen <= self.groups:
            raise ConfigError(f"chosen={self.chosen} groups of {self.groups}; it is from 1 to groups")

    def check(self, k: int, experts: int) -> None:
        each, rest = divmod(experts, self.groups)
        if rest or each < 2:
            raise ConfigError(f"{experts} experts in groups={self.groups}; groups are equal, of two experts or more")
        if k > each * self.chosen:
            raise ConfigError(f"k={k} experts can't be chosen in {self.chosen} groups of {each}; raise chosen")

    def limited(self, scores: Float[Array, "B L E"]) -> Float[Array, "B L E"]:
        """The scores, -inf outside the chosen groups."""
        in_groups = scores.reshape(*scores.shape[:-1], self.groups, -1)
        of_groups = lax.top_k(in_groups, 2)[0].sum(axis=-1)
        open_ = (_best(of_groups, self.chosen)[..., None] == jnp.arange(self.groups)).any(axis=-2)
        return jnp.where(open_[..., None], in_groups, -jnp.inf).reshape(scores.shape)


@config
class SigmoidTopK(Scored):
    """The k highest of sigmoid scores plus a correction of the choice (DeepSeek-V3 2.1.2, equations 12-16).

    The correction is 0 at the start; `LossFree` moves it. Weights are the scores without it, normalized to add up to 1
    or not, times scale. limit: which experts may be chosen together.
    """

    gives = ("load", "probs", "logits", "bias")
    k: int
    normalized: bool = True
    scale: float = 1.0
    limit: GroupLimit | None = None

    def check(self, experts: int) -> None:
        _check_k(self.k, experts)
        if self.limit is not None:
            self.limit.check(self.k, experts)

    def per_token(self) -> int | float:
        return self.k

    def route(self, logits: Float[Array, "B L E"], bias: Float[Array, "E"] | None) -> Routed:
        assert bias is not None
        scores = jax.nn.sigmoid(logits)
        choice = scores + bias
        expert = _best(choice if self.limit is None else self.limit.limited(choice), self.k)
        weight = jnp.take_along_axis(scores, expert, axis=-1)
        if self.normalized:
            weight = weight / (weight.sum(axis=-1, keepdims=True) + TINY)
        probs = scores / (scores.sum(axis=-1, keepdims=True) + TINY)
        return Routed(Choices(expert, self.scale * weight), probs, logits, bias)


TINY = 1e-20  # all scores can round to 0


@config
class ExpertChoice(Scored):
    """Each expert chooses the tokens of a row that it scores highest (Zhou et al. 2022, equation 2).

    factor: experts that compute a token on average; each takes factor L / E of a row of L tokens, so the load is
    always equal. It is NOT CAUSAL: whether a token is chosen depends on later ones (by comparison only, so that no
    gradient shows it), on other documents of the row and on its padding. It is meant for encoders. A language model
    trained with it sees a little of the future, and decoding token by token can't be the same function: rows in which
    an expert has less than one token to choose are refused, unless factor is the number of experts, where all compute
    every token.
    """

    gives = ("logits",)
    factor: float = 2.0

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise ConfigError(f"factor={self.factor} experts a token must be positive")

    def check(self, experts: int) -> None:
        if self.factor > experts:
            raise ConfigError(f"factor={self.factor}: a token can't have more than all experts={experts}")

    def per_token(self) -> int | float:
        return self.factor

    def slots(self, experts: int, length: int) -> int:
        return max(1, int(self.factor * length / experts))

    def route(self, logits: Float[Array, "B L E"], bias: Float[Array, "E"] | None) -> Routed:
        length, experts = logits.shape[1:]
        if self.factor * length < experts:
            raise ConfigError(
                f"ExpertChoice: {experts} experts can't choose among {length} token(s) with factor={self.factor}. It "
                "isn't causal, so it can't decode token by token; for that use SoftmaxTopK"
            )
        probs = jax.nn.softmax(logits)
        probs_BEL = probs.swapaxes(1, 2)
        token = _best(probs_BEL, self.slots(experts, length))
        return Routed(Slots(token, jnp.take_along_axis(probs_BEL, token, axis=-1)), probs, logits)


@config
class Hash(Routing):
    """One expert, found by a fixed hash of the token's vector, with weight 1; nothing is learned.

    Hash layers (Roller et al. 2021) hash the token's identity. A feed-forward layer sees only its hidden state, so
    this hashes the direction of that: the nearest of E random orthogonal ones (cross-polytope hashing, Andoni et al.
    2015, without the negative ones). Equal tokens part as soon as their contexts have made them differ.
    """

    gives = ()
    seed: int = 0

    def check(self, experts: int) -> None:
        pass

    def build(self, width: int, experts: int, *, rngs: nnx.Rngs) -> HashRouter:
        return HashRouter(self, experts)

    def cost(self, width: int, experts: int, length: int) -> Cost:
        return Cost(flops=2 * width * experts * length)

    def per_token(self) -> int | float:
        return 1


class HashRouter(nnx.Module):
    def __init__(self, spec: Hash, experts: int):
        self.spec, self.experts = spec, experts

    def __call__(self, x: Float[Array, "B L D"]) -> Routed:
        scores = lax.stop_gradient(x).astype(jnp.float32) @ self._directions(x.shape[2])
        expert = _best(scores, 1)
        return Routed(Choices(expert, jnp.ones(expert.shape, jnp.float32)))

    def _directions(self, width: int) -> Float[Array, "D E"]:
        """Unit vectors, orthogonal within each run of `width` of them: uniform directions fall on all equally often."""
        rng, starts = np.random.default_rng(self.spec.seed), range(0, self.experts, width)
        counts = [min(width, self.experts - start) for start in starts]
        turned = [np.linalg.qr(rng.standard_normal((width, count)))[0] for count in counts]
        return jnp.asarray(np.concatenate(turned, axis=1), jnp.float32)
