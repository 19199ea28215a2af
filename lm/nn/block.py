"""A block: a mixer and a feed-forward layer around the residual stream, and the ways to normalise them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import jax
from flax import nnx

from lm.config import ConfigError, config
from lm.nn.aux import Aux
from lm.nn.cost import Cost
from lm.nn.feedforward import FeedForward
from lm.nn.mixer import Mixer
from lm.nn.norms import Norm, RMSNorm

Part = Callable[[jax.Array], jax.Array]


class Residual(abc.ABC):
    """Where the norms stand. A residual form is a function of the stream, the two parts and its norms."""

    mixer_norms: ClassVar[tuple[str, ...]]
    ff_norms: ClassVar[tuple[str, ...]]

    def norms(self, block: Block) -> tuple[str, ...]:
        """The names of the norms that a block needs."""
        return self.mixer_norms + (() if block.ff is None else self.ff_norms)

    @abc.abstractmethod
    def __call__(self, x: jax.Array, mix: Part, feed: Part | None, norm: dict[str, Part]) -> jax.Array: ...


@config
class PreNorm(Residual):
    """x + mix(norm(x)), then x + ff(norm(x)) (Xiong et al. 2020; GPT-2, Llama)."""

    mixer_norms = ("mixer",)
    ff_norms = ("ff",)

    def __call__(self, x: jax.Array, mix: Part, feed: Part | None, norm: dict[str, Part]) -> jax.Array:
        x = x + mix(norm["mixer"](x))
        return x if feed is None else x + feed(norm["ff"](x))


@config
class PostNorm(Residual):
    """norm(x + mix(x)), then norm(x + ff(x)) (Vaswani et al. 2017)."""

    mixer_norms = ("mixer",)
    ff_norms = ("ff",)

    def __call__(self, x: jax.Array, mix: Part, feed: Part | None, norm: dict[str, Part]) -> jax.Array:
        x = norm["mixer"](x + mix(x))
        return x if feed is None else norm["ff"](x + feed(x))


@config
class Sandwich(Residual):
    """Norms before and after each part: x + norm(mix(norm(x))) (CogView 2021; Gemma 2; "peri-LN")."""

    mixer_norms = ("mixer", "mixer_out")
    ff_norms = ("ff", "ff_out")

    def __call__(self, x: jax.Array, mix: Part, feed: Part | None, norm: dict[str, Part]) -> jax.Array:
        x = x + norm["mixer_out"](mix(norm["mixer"](x)))
        return x if feed is None else x + norm["ff_out"](feed(norm["ff"](x)))


@config
class Parallel(Residual):
    """x + mix(norm(x)) + ff(norm(x)), each part with a norm of its own (GPT-NeoX)."""

    mixer_norms = ("mixer",)
    ff_norms = ("ff",)

    def __call__(self, x: jax.Array, mix: Part, feed: Part | None, norm: dict[str, Part]) -> jax.Array:
        y = x + mix(norm["mixer"](x))
        return y if feed is None else y + feed(norm["ff"](x))


@config
class SharedParallel(Residual):
    """x + mix(n) + ff(n) with one norm n = norm(x) (GPT-J, PaLM)."""

    mixer_norms = ("shared",)
    ff_norms = ()

    def __call__(self, x: jax.Array, mix: Part, feed: Part | None, norm: dict[str, Part]) -> jax.Array:
        n = norm["shared"](x)
        y = x + mix(n)
        return y if feed is None else y + feed(n)


@config
class Block:
    """One layer of a model. ff None: a mixer alone."""

    mixer: Mixer
    ff: FeedForward | None = None
    norm: Norm | None = RMSNorm()
    residual: Residual = PreNorm()

    def __post_init__(self) -> None:
        if self.norm is None and not isinstance(self.residual, PreNorm):
            raise ConfigError(f"norm=None leaves nothing for {type(self.residual).__name__} to place; use PreNorm()")

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> BlockLayer:
        return BlockLayer(self, width, rngs=rngs, depth=depth)

    def cost(self, width: int, length: int) -> Cost:
        total = self.mixer.cost(width, length)
        if self.ff is not None:
            total += self.ff.cost(width, length)
        if self.norm is not None:
            total = sum((self.norm.cost(width) for _ in self.residual.norms(self)), total)
        return total


class BlockLayer(nnx.Module):
    """`layer(x, positions, segments, cache) -> (y, cache, aux)`."""

    def __init__(self, spec: Block, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        self.mixer = spec.mixer.build(width, rngs=rngs, depth=depth)
        self.ff = None if spec.ff is None else spec.ff.build(width, rngs=rngs, depth=depth)
        names = () if spec.norm is None else spec.residual.norms(spec)
        self.norms = nnx.Dict({name: spec.norm.build(width, rngs=rngs) for name in names})  # type: ignore[union-attr]

    def __call__(
        self, x: jax.Array, positions: jax.Array, segments: jax.Array, cache: Any = None
    ) -> tuple[jax.Array, Any, Aux]:
        aux = Aux()

        def mix(h: jax.Array) -> jax.Array:
            nonlocal cache
            with jax.named_scope("mixer"):
                y, cache = self.mixer(h, positions, segments, cache)
            return y

        def feed(h: jax.Array) -> jax.Array:
            nonlocal aux
            with jax.named_scope("ff"):
                y, aux = self.ff(h)  # type: ignore[misc]
            return y

        norm: dict[str, Part] = {name: lambda h: h for name in self.spec.residual.norms(self.spec)}
        norm |= dict(self.norms.items())
        x = self.spec.residual(x, mix, None if self.ff is None else feed, norm)
        return x, cache, aux
