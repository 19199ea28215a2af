"""What every architecture answers."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax
from flax import nnx

from lm.nn.aux import Aux
from lm.nn.cache import Cache as LayerCache
from lm.nn.cost import Cost
from lm.sharding import Layout

Cache = tuple[LayerCache, ...]


class Hidden(NamedTuple):
    """What the output layer reads: its features h [B L D], the cache if one was given, what the layers say besides."""

    h: jax.Array
    cache: Cache | None
    aux: Aux


class Model(abc.ABC):
    """A model as a value.

    What it builds is called with tokens and gives what its output layer says, in float32. A loss that joins itself with
    that layer takes `hidden(...)` for the features, `head() [classes D]` and `head_bias()` for the layer.
    """

    vocab: int
    width: int
    softcap: float | None = None

    @property
    def classes(self) -> int:
        """How many there are to choose from, in what the output layer says."""
        return self.vocab

    @abc.abstractmethod
    def build(self, *, rngs: nnx.Rngs) -> Any: ...

    @abc.abstractmethod
    def cost(self, length: int) -> Cost:
        """The cost of one document of `length` tokens."""

    @abc.abstractmethod
    def check_context(self, length: int) -> None:
        """Raises ConfigError if the model has no positions for `length` tokens."""

    @abc.abstractmethod
    def check_split(self, where: Layout) -> None:
        """Raises ShardingError if a part of the model can't be split as this layout says."""


class Around(Model):
    """A model around another one, whose tokens, width and cap on logits it has."""

    @property
    @abc.abstractmethod
    def part(self) -> Model: ...

    @property
    def vocab(self) -> int:  # type: ignore[override]
        return self.part.vocab

    @property
    def width(self) -> int:  # type: ignore[override]
        return self.part.width

    @property
    def softcap(self) -> float | None:  # type: ignore[override]
        return self.part.softcap

    def check_split(self, where: Layout) -> None:
        self.part.check_split(where)
