"""A block: a mixer and a feed-forward layer around the residual stream, and the ways to normalise them."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from lm.config import ConfigError, config
from lm.nn.aux import Aux
from lm.nn.cost import Cost
from lm.nn.cross import Context, Cross
from lm.nn.feedforward import FeedForward
from lm.nn.kernels.attention_decode import Slots
from lm.nn.mixer import Mixer
from lm.nn.norms import Norm, RMSNorm
from lm.sharding import Layout

Part = Callable[[jax.Array], jax.Array]
Parts = dict[str, Part]  # "mixer", then "cross" and "ff" where a block has them


class Residual(abc.ABC):
    """Where the norms stand. A residual form is a function of the stream, the block's parts and its norms."""

    def norms(self, parts: Sequence[str]) -> tuple[str, ...]:
        """The names of the norms that a block of these parts needs."""
        return tuple(parts)

    @abc.abstractmethod
    def __call__(self, x: jax.Array, parts: Parts, norm: Parts) -> jax.Array: ...


@config
class PreNorm(Residual):
    """x + mix(norm(x)), then x + ff(norm(x)) (Xiong et al. 2020; GPT-2, Llama).

    scale multiplies what each part adds (Granite). unnormed: parts that read the stream as it is (ModernBERT's first
    layer, which follows the embeddings' norm).
    """

    scale: float = 1.0
    unnormed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if left := [name for name in self.unnormed if name not in PARTS]:
            raise ConfigError(f"unnormed: a block has no part '{left[0]}'; its parts are {', '.join(PARTS)}")

    def norms(self, parts: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in parts if name not in self.unnormed)

    def __call__(self, x: jax.Array, parts: Parts, norm: Parts) -> jax.Array:
        for name, part in parts.items():
            y = part(x if name in self.unnormed else norm[name](x))
            x = x + (y if self.scale == 1 else self.scale * y)
        return x


@config
class PostNorm(Residual):
    """norm(x + mix(x)), then norm(x + ff(x)) (Vaswani et al. 2017)."""

    def __call__(self, x: jax.Array, parts: Parts, norm: Parts) -> jax.Array:
        for name, part in parts.items():
            x = norm[name](x + part(x))
        return x


@config
class OutputNorm(Residual):
    """x + norm(mix(x)), then x + norm(ff(x)): only what is added is normalised (Swin v2 2021; OLMo 2)."""

    def __call__(self, x: jax.Array, parts: Parts, norm: Parts) -> jax.Array:
        for name, part in parts.items():
            x = x + norm[name](part(x))
        return x


@config
class Sandwich(Residual):
    """Norms before and after each part: x + norm(mix(norm(x))) (CogView 2021; Gemma 2; "peri-LN")."""

    def norms(self, parts: Sequence[str]) -> tuple[str, ...]:
        return tuple(norm for name in parts for norm in (name, f"{name}_out"))

    def __call__(self, x: jax.Array, parts: Parts, norm: Parts) -> jax.Array:
        for name, part in parts.items():
            x = x + norm[f"{name}_out"](part(norm[name](x)))
        return x


@config
class Parallel(Residual):
    """x + mix(norm(x)) + ff(norm(x)), each part with a norm of its own (GPT-NeoX)."""

    def __call__(self, x: jax.Array, parts: Parts, norm: Parts) -> jax.Array:
        return sum((part(norm[name](x)) for name, part in parts.items()), x)


@config
class SharedParallel(Residual):
    """x + mix(n) + ff(n) with one norm n = norm(x) (GPT-J, PaLM)."""

    def norms(self, parts: Sequence[str]) -> tuple[str, ...]:
        return ("shared",)

    def __call__(self, x: jax.Array, parts: Parts, norm: Parts) -> jax.Array:
        n = norm["shared"](x)
        return sum((part(n) for part in parts.values()), x)


@config
class Plain(Residual):
    """mix(norm(x)), then ff(norm(x)): nothing is added to the stream (the recurrent models before residual ones)."""

    def __call__(self, x: jax.Array, parts: Parts, norm: Parts) -> jax.Array:
        for name, part in parts.items():
            x = part(norm[name](x))
        return x


PARTS = ("mixer", "cross", "ff")


@config
class Block:
    """One layer of a model. ff None: a mixer alone. cross: reads an encoder's output, between the two."""

    mixer: Mixer
    ff: FeedForward | None = None
    norm: Norm | None = RMSNorm()
    residual: Residual = PreNorm()
    cross: Cross | None = None

    def __post_init__(self) -> None:
        if self.norm is None and not isinstance(self.residual, PreNorm | Plain):
            raise ConfigError(f"norm=None leaves nothing for {type(self.residual).__name__} to place; use PreNorm()")
        if isinstance(self.residual, PreNorm) and (gone := set(self.residual.unnormed) - set(self.parts)):
            raise ConfigError(f"residual.unnormed names '{min(gone)}', which this block doesn't have")

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(name for name in PARTS if getattr(self, name) is not None)

    def build(self, width: int, *, rngs: nnx.Rngs, depth: int = 1) -> BlockLayer:
        return BlockLayer(self, width, rngs=rngs, depth=depth)

    def check_split(self, where: Layout) -> None:
        """Raises ShardingError where a part can't be split so."""
        self.mixer.check_split(where)
        if self.cross is not None:
            self.cross.check_split(where)
        if self.ff is not None:
            self.ff.check_split(where)

    def cost(self, width: int, length: int, context: int = 0) -> Cost:
        """Of `length` tokens that read a context of so many."""
        total = self.mixer.cost(width, length)
        if self.cross is not None:
            total += self.cross.cost(width, length, context)
        if self.ff is not None:
            total += self.ff.cost(width, length)
        if self.norm is not None:
            total = sum((self.norm.cost(width) for _ in self.residual.norms(self.parts)), total)
        return total


class BlockLayer(nnx.Module):
    """`layer(x, positions, segments, cache, context) -> (y, cache, aux)`."""

    def __init__(self, spec: Block, width: int, *, rngs: nnx.Rngs, depth: int):
        self.spec = spec
        self.mixer = spec.mixer.build(width, rngs=rngs, depth=depth)
        self.ff = None if spec.ff is None else spec.ff.build(width, rngs=rngs, depth=depth)
        names = () if spec.norm is None else spec.residual.norms(spec.parts)
        self.norms = nnx.Dict({name: spec.norm.build(width, rngs=rngs) for name in names})  # type: ignore[union-attr]
        self.cross = None if spec.cross is None else spec.cross.build(width, rngs=rngs, depth=depth)

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        segments: jax.Array,
        cache: Any = None,
        context: Context | Slots | None = None,
    ) -> tuple[jax.Array, Any, Aux]:
        """context: what cross-attention reads: an encoder's output, or this layer's keys and values of it."""
        aux = Aux()

        def mix(h: jax.Array) -> jax.Array:
            nonlocal cache
            with jax.named_scope("mixer"):
                y, cache = self.mixer(h, positions, segments, cache)
            return y

        def read(h: jax.Array) -> jax.Array:
            if context is None:
                raise ConfigError("this block reads an encoder's output; use it in an EncoderDecoder")
            with jax.named_scope("cross"):
                return self.cross(h, positions, segments, context)  # type: ignore[misc]

        def feed(h: jax.Array) -> jax.Array:
            nonlocal aux
            with jax.named_scope("ff"):
                y, aux = self.ff(h)  # type: ignore[misc]
            return y

        every: Parts = {"mixer": mix, "cross": read, "ff": feed}
        names = self.spec.parts
        norm: Parts = {name: lambda h: h for name in self.spec.residual.norms(names)} | dict(self.norms.items())
        return self.spec.residual(x, {name: every[name] for name in names}, norm), cache, aux
