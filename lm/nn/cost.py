"""What a component costs, exactly: parameters, matrix-multiplication FLOPs and cached numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one forward pass over one document of a stated length.

    params: all parameters; embedding: those of them in token and position tables and the output head;
    active: those that take part for one token (fewer than `params` with experts).
    flops: 2 m n k for every matrix product of the forward pass, masked-out query-key pairs not counted.
    cache: numbers (not bytes) that decoding keeps after the whole document.
    shared: those of `params` that every layer made from one block has in common.
    """

    params: int = 0
    embedding: int = 0
    active: int = 0
    flops: int = 0
    cache: int = 0
    shared: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            params=self.params + other.params,
            embedding=self.embedding + other.embedding,
            active=self.active + other.active,
            flops=self.flops + other.flops,
            cache=self.cache + other.cache,
            shared=self.shared + other.shared,
        )

    def times(self, count: int) -> Cost:
        """The cost of `count` layers of this cost."""
        again = count - 1
        return Cost(
            params=count * self.params - again * self.shared,
            embedding=count * self.embedding,
            active=count * self.active - again * min(self.shared, self.active),
            flops=count * self.flops,
            cache=count * self.cache,
        )

    def all_shared(self) -> Cost:
        """The same, of a layer whose parameters are all in common."""
        return replace(self, shared=self.params)

    @property
    def non_embedding(self) -> int:
        return self.params - self.embedding

    @property
    def train_flops(self) -> int:
        """Forward and backward: every product is done once forward and twice backward (recomputation not counted)."""
        return 3 * self.flops

    def cache_bytes(self, itemsize: int = 2) -> int:
        return self.cache * itemsize


def dense(inputs: int, outputs: int, tokens: int, bias: bool = False) -> Cost:
    """A linear layer applied to `tokens` tokens."""
    params = inputs * outputs + (outputs if bias else 0)
    return Cost(params=params, active=params, flops=2 * inputs * outputs * tokens)


def weights(count: int) -> Cost:
    """Parameters that multiply element by element, or are looked up: no matrix product."""
    return Cost(params=count, active=count)
