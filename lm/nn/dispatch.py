"""From tokens to experts and back: how the tokens that a router assigned reach the experts' weights."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.config import ConfigError, config
from lm.nn.kernels.grouped import grouped
from lm.nn.routing import Choices, Routed, Routing, Slots, refuse_parts_of_rows
from lm.shapes import Array, Float
from lm.sharding import Layout


class Equal(NamedTuple):
    """Rows [E R ...] that are equally many for each of `experts`."""

    experts: int

    @property
    def expert(self) -> jax.Array:
        """Each row's expert, to index what isn't a product."""
        return jnp.arange(self.experts)[:, None]

    def product(self, x: Float[Array, "E R I"], w: Float[Array, "E I O"]) -> Float[Array, "E R O"]:
        return jnp.einsum("ERI,EIO->ERO", x, w.astype(x.dtype))


class Sorted(NamedTuple):
    """Rows [A ...] in the order of their experts; rows beyond the sum of the sizes belong to none.

    sizes [E]: rows of each expert, none of which has more than `most`. expert [A]: each row's expert; any for the rows
    of none, whose products are 0.
    """

    sizes: jax.Array
    expert: jax.Array
    most: int

    def product(self, x: Float[Array, "A I"], w: Float[Array, "E I O"]) -> Float[Array, "A O"]:
        return grouped(x, w, self.sizes)


Rows = Equal | Sorted
Experts = Callable[[jax.Array, Rows], jax.Array]  # rows -> rows, each by its expert


class Dispatch(abc.ABC):
    """One alternative of `MoE.dispatch`."""

    def check(self, routing: Routing, experts: int) -> None:  # noqa: B027 -- most go with any
        """Raises ConfigError if it has no meaning with this routing."""

    @abc.abstractmethod
    def rows(self, routing: Routing, experts: int, length: int) -> int:
        """Rows that the experts compute for a document of `length` tokens, empty slots among them."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "B L D"], routed: Routed, experts: Experts, count: int) -> Float[Array, "B L D"]:
        """The weighted sum of each token's experts, in x's type; sums are float32."""

    def check_split(self, where: Layout) -> None:  # noqa: B027 -- most look at a token alone
        """Raises ShardingError where the layer can't be split so."""

    def dropped(self, routed: Routed, count: int) -> jax.Array | None:
        """The share of choices that no expert computes, where there can be any."""
        return None


@config
class Dropless(Dispatch):
    """Every choice is computed: tokens sorted by expert, then a grouped product (Gale et al. 2022, MegaBlocks).

    Its FLOPs are counted without the rows that the form for CPU adds to fill blocks, less than half a block an expert
    on average.
    """

    def rows(self, routing: Routing, experts: int, length: int) -> int:
        slots = routing.slots(experts, length)
        return int(routing.per_token() * length) if slots is None else experts * slots

    def __call__(self, x: Float[Array, "B L D"], routed: Routed, experts: Experts, count: int) -> Float[Array, "B L D"]:
        if isinstance(routed.by, Slots):
            return _by_slots(x, routed.by, experts)
        return _sorted(x, routed.by, experts, count)


class Limited(Dispatch):
    """Each expert has places for some of a row's choices; later ones are dropped.

    Fedus et al. 2021, 2.2; a dropped choice adds nothing. Places are given in the order of the tokens, so that what
    comes later drops nothing before it; but a row's documents and its padding share the room, and short rows have
    more of it, so that decoding token by token drops nothing at all.
    """

    def check(self, routing: Routing, experts: int) -> None:
        if routing.slots(experts, 1) is not None:
            name = type(self).__name__
            raise ConfigError(f"{name}: {type(routing).__name__} fills each expert exactly; use Dropless()")

    @abc.abstractmethod
    def room(self, choices: int | float, experts: int, length: int) -> int:
        """Places that an expert has in a row of `length` tokens; a token needs at most one."""

    def rows(self, routing: Routing, experts: int, length: int) -> int:
        return experts * self.room(routing.per_token(), experts, length)

    def __call__(self, x: Float[Array, "B L D"], routed: Routed, experts: Experts, count: int) -> Float[Array, "B L D"]:
        return _by_slots(x, self._slots(_choices(routed), count), experts)

    def check_split(self, where: Layout) -> None:
        refuse_parts_of_rows(self, where)

    def dropped(self, routed: Routed, count: int) -> jax.Array:
        choices = _choices(routed)
        length, k = choices.expert.shape[1:]
        taken_BE = jnp.sum(choices.expert[..., None] == jnp.arange(count), axis=(1, 2))
        return 1 - jnp.sum(jnp.minimum(taken_BE, self.room(k, count, length))) / choices.expert.size

    def _slots(self, choices: Choices, count: int) -> Slots:
        rows, length, k = choices.expert.shape
        room = self.room(k, count, length)
        expert_BA = choices.expert.reshape(rows, length * k)
        mine = expert_BA[..., None] == jnp.arange(count)
        before_BA = jnp.take_along_axis(jnp.cumsum(mine, axis=1), expert_BA[..., None], axis=-1)[..., 0] - 1
        place = (jnp.arange(rows)[:, None], expert_BA, before_BA)  # beyond the room: out of bounds, and so dropped
        token = jnp.full((rows, count, room), length).at[place].set(jnp.arange(length * k) // k, mode="drop")
        weight = jnp.zeros(token.shape).at[place].set(choices.weight.reshape(rows, -1), mode="drop")
        return Slots(token, weight)


@config
class Capacity(Limited):
    """Room for factor times an expert's fair share of a row's choices, rounded up."""

    factor: float = 1.25

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise ConfigError(f"factor={self.factor} of the fair share must be positive")

    def room(self, choices: int | float, experts: int, length: int) -> int:
        return min(length, math.ceil(self.factor * choices * length / experts))


@config
class FixedCapacity(Limited):
    """Room for so many of a row's choices, however long the row is: transformers' form of Switch."""

    places: int

    def __post_init__(self) -> None:
        if self.places < 1:
            raise ConfigError(f"places={self.places} of an expert must be at least 1")

    def room(self, choices: int | float, experts: int, length: int) -> int:
        return min(length, self.places)


@config
class Dense(Dispatch):
    """Every expert computes every token, and most of it is multiplied by 0: the definition, for a few small experts."""

    def rows(self, routing: Routing, experts: int, length: int) -> int:
        return experts * length

    def __call__(self, x: Float[Array, "B L D"], routed: Routed, experts: Experts, count: int) -> Float[Array, "B L D"]:
        weight_BLE = _weights(routed, x.shape[1], count)
        x_END = jnp.broadcast_to(x.reshape(-1, x.shape[2]), (count, x.shape[0] * x.shape[1], x.shape[2]))
        y_END = experts(x_END, Equal(count)).astype(jnp.float32)
        y_ND = jnp.sum(y_END * weight_BLE.reshape(-1, count).T[..., None], axis=0)
        return y_ND.reshape(x.shape).astype(x.dtype)


def _choices(routed: Routed) -> Choices:
    assert isinstance(routed.by, Choices)
    return routed.by


def _weights(routed: Routed, length: int, count: int) -> Float[Array, "B L E"]:
    """The weight of every expert for every token, 0 for those that weren't chosen."""
    by, rows = routed.by, routed.by.weight.shape[0]
    empty, row = jnp.zeros((rows, length, count)), jnp.arange(rows)[:, None, None]
    if isinstance(by, Choices):
        return empty.at[row, jnp.arange(length)[:, None], by.expert].set(by.weight)
    return empty.at[row, by.token, jnp.arange(count)[:, None]].set(by.weight, mode="drop")


def _sorted(x: Float[Array, "B L D"], choices: Choices, experts: Experts, count: int) -> Float[Array, "B L D"]:
    width, k = x.shape[2], choices.expert.shape[2]
    expert_A = choices.expert.reshape(-1)
    order = jnp.argsort(expert_A, stable=True)
    sizes = jnp.sum(expert_A[:, None] == jnp.arange(count), axis=0)
    by = Sorted(sizes, expert_A[order], len(expert_A) // k)
    y_AD = experts(permuted(jnp.repeat(x.reshape(-1, width), k, axis=0), order), by)
    y_NKD = permuted(y_AD, jnp.argsort(order)).reshape(-1, k, width).astype(jnp.float32)
    return jnp.sum(y_NKD * choices.weight.reshape(-1, k, 1), axis=1).reshape(x.shape).astype(x.dtype)


def permuted(x: Float[Array, "A D"], order: jax.Array) -> Float[Array, "A D"]:
    """x[order] of a permutation: its gradient adds nothing up, and is the same bits on every machine."""
    return x.at[order].get(unique_indices=True, mode="promise_in_bounds")


def _by_slots(x: Float[Array, "B L D"], slots: Slots, experts: Experts) -> Float[Array, "B L D"]:
    rows, count, room = slots.token.shape
    row = jnp.arange(rows)[:, None, None]
    x_EBCD = x.at[row, slots.token].get(mode="fill", fill_value=0).swapaxes(0, 1)
    y_ERD = experts(x_EBCD.reshape(count, rows * room, -1), Equal(count))
    y_BECD = y_ERD.reshape(x_EBCD.shape).swapaxes(0, 1).astype(jnp.float32) * slots.weight[..., None]
    return jnp.zeros(x.shape).at[row, slots.token].add(y_BECD, mode="drop").astype(x.dtype)
