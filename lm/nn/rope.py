"""Rotary positions (Su et al. 2021) and the ways to stretch them beyond the trained length."""

from __future__ import annotations

import abc
import math

import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.config import ConfigError, config
from lm.nn.cost import Cost
from lm.nn.relative import RelativeLayer, RelativePosition
from lm.shapes import Array, Float, Int

Frequencies = np.ndarray  # [rotated width / 2], radians a position


class RoPEScaling(abc.ABC):
    """Changes the frequencies so that `factor` times longer texts stay in the range that was trained.

    Some depend on the length of the text: they take the largest position of the row in this call, with packed
    documents that of the longest. What such a model says of a token then depends on how many follow, though not on
    which; and the keys in a cache stay turned as they were when the text was shorter, so that decoding across
    `original_length` isn't the full forward pass.
    """

    factor: float

    def __post_init__(self) -> None:
        for name in ("factor", "original_length", "attention_factor"):
            value = getattr(self, name, None)
            if value is not None and value <= 0:
                raise ConfigError(f"{type(self).__name__}: {name}={value} must be above 0")

    @abc.abstractmethod
    def __call__(self, frequencies: Frequencies, base: float) -> Frequencies:
        """The frequencies of texts within the trained length; of all texts, where the length plays no part."""

    def at(self, frequencies: Array, lengths: Array) -> Array:
        """Those frequencies as they are in texts of these lengths [B 1 1 1]; broadcast to [B 1 1 half]."""
        del lengths
        return frequencies

    def magnitude(self) -> float:
        """What the rotated vectors are multiplied by."""
        return 1.0

    def emphasis(self) -> float:
        """What scores are multiplied by besides, those of parts that aren't rotated too."""
        return 1.0


@config
class LinearScaling(RoPEScaling):
    """Position interpolation: all frequencies divided by `factor` (Chen et al. 2023)."""

    factor: float

    def __call__(self, frequencies: Frequencies, base: float) -> Frequencies:
        return frequencies / self.factor


@config
class NTKScaling(RoPEScaling):
    """A larger base: the slowest frequency is divided by `factor`, the fastest kept ("NTK-aware", bloc97 2023)."""

    factor: float

    def __call__(self, frequencies: Frequencies, base: float) -> Frequencies:
        width = 2 * len(frequencies)
        if width == 2:
            raise ConfigError(
                "NTKScaling keeps the fastest frequency and a single pair has no other; use LinearScaling"
            )
        stretched = base * self.factor ** (width / (width - 2))
        return stretched ** (-np.arange(0, width, 2) / width)


@config
class DynamicNTK(RoPEScaling):
    """NTKScaling whose factor is factor x length / original_length - (factor - 1), from `original_length` on ("dynamic
    NTK", emozilla 2023; `transformers`' "dynamic"). Depends on the length."""

    factor: float
    original_length: int

    def __call__(self, frequencies: Frequencies, base: float) -> Frequencies:
        NTKScaling(factor=self.factor)(frequencies, base)  # raises if it doesn't fit
        return frequencies

    def at(self, frequencies: Array, lengths: Array) -> Array:
        longer = jnp.maximum(lengths, self.original_length) / self.original_length - 1
        index = jnp.arange(len(frequencies)) / (len(frequencies) - 1)
        return frequencies * (1 + self.factor * longer) ** -index


@config
class LongRoPE(RoPEScaling):
    """Divides each frequency by a factor of its own: `short` up to original_length, `long` beyond it (Ding et al. 2024;
    Phi-3). Depends on the length.

    attention_factor multiplies the rotated vectors; None: sqrt(1 + ln(factor) / ln(original_length)).
    """

    short: tuple[float, ...]
    long: tuple[float, ...]
    factor: float
    original_length: int
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.short) != len(self.long) or min(*self.short, *self.long, 1.0) <= 0:
            raise ConfigError("LongRoPE: short and long are positive factors, one of each for every turned pair")

    def __call__(self, frequencies: Frequencies, base: float) -> Frequencies:
        if len(self.short) != len(frequencies):
            raise ConfigError(f"LongRoPE: {len(self.short)} factors, but the head has {len(frequencies)} turned pairs")
        return frequencies / np.asarray(self.short)

    def at(self, frequencies: Array, lengths: Array) -> Array:
        ratio = jnp.asarray(np.asarray(self.short) / np.asarray(self.long), jnp.float32)
        return jnp.where(lengths > self.original_length, frequencies * ratio, frequencies)

    def magnitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return math.sqrt(1 + math.log(self.factor) / math.log(self.original_length)) if self.factor > 1 else 1.0


@config
class ProportionalScaling(RoPEScaling):
    """Only the fastest `turned` share of the pairs of the whole head is turned, by frequencies divided by `factor`.

    Unlike RoPE.fraction, the pairs and their frequencies are those of the whole width (`transformers`' "proportional").
    """

    turned: float
    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.turned <= 1:
            raise ConfigError(f"ProportionalScaling: turned={self.turned} must be above 0 and at most 1")

    def __call__(self, frequencies: Frequencies, base: float) -> Frequencies:
        pairs = int(self.turned * len(frequencies))
        return np.where(np.arange(len(frequencies)) < pairs, frequencies, 0) / self.factor


@config
class YaRN(RoPEScaling):
    """Interpolates slow frequencies only, ramped by how often they turn in `original_length` (Peng et al. 2023, 3.2).

    attention_factor multiplies the rotated vectors; None: m(mscale) / m(mscale_all_dim), where m(s) is
    0.1 s ln(factor) + 1, with these defaults the paper's (equation 22). m(mscale_all_dim)^2 multiplies the scores, so
    that it acts on parts that aren't rotated too (DeepSeek-V2). truncate: the ramp begins and ends at whole pairs.
    """

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float = 1.0
    mscale_all_dim: float = 0.0
    truncate: bool = True

    def __call__(self, frequencies: Frequencies, base: float) -> Frequencies:
        width = 2 * len(frequencies)

        def index(turns: float) -> float:  # which dimension turns this often in the original length
            return width * math.log(self.original_length / (turns * 2 * math.pi)) / (2 * math.log(base))

        low, high = index(self.beta_fast), index(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        ramp = np.clip((np.arange(width // 2) - low) / max(high - low, 0.001), 0, 1)
        return frequencies / self.factor * ramp + frequencies * (1 - ramp)

    def magnitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return self._m(self.mscale) / self._m(self.mscale_all_dim)

    def emphasis(self) -> float:
        return self._m(self.mscale_all_dim) ** 2

    def _m(self, scale: float) -> float:
        return 0.1 * scale * math.log(max(self.factor, 1)) + 1


@config
class Llama3Scaling(RoPEScaling):
    """Divides wavelengths longer than original_length / low_frequency_factor, smoothly (Llama 3.1 release, 2024)."""

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_length: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ConfigError("high_frequency_factor must be larger than low_frequency_factor")

    def __call__(self, frequencies: Frequencies, base: float) -> Frequencies:
        turns = self.original_length * frequencies / (2 * math.pi)
        span = self.high_frequency_factor - self.low_frequency_factor
        keep = np.clip((turns - self.low_frequency_factor) / span, 0, 1)
        return keep * frequencies + (1 - keep) * frequencies / self.factor


@config
class RoPE(RelativePosition):
    """Turns pairs (x_i, x_{i+P/2}) of queries and keys by position x base^(-2i/P) (Su et al. 2021, equation 34).

    fraction: the share of the head's width that is turned; the rest stays as it is (GPT-NeoX: 0.25).
    """

    base: float = 10000.0
    fraction: float = 1.0
    scaling: RoPEScaling | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction={self.fraction} must be in (0, 1]; for no rotation use position=None")
        if self.base <= 1:
            raise ConfigError(f"base={self.base} must be larger than 1")

    def build(self, heads: int, head_width: int, *, rngs: nnx.Rngs) -> RoPELayer:
        return RoPELayer(self, head_width)

    def cost(self, heads: int, head_width: int) -> Cost:
        self.frequencies(head_width)  # raises if it doesn't fit
        return Cost()

    def frequencies(self, head_width: int) -> Frequencies:
        """Radians a position, one for each turned pair."""
        width = int(head_width * self.fraction)
        if width < 2 or width % 2:
            raise ConfigError(
                f"RoPE turns pairs, so an even part of the head's width: {self.fraction} x {head_width} gives {width}; "
                "change head_width or position.fraction"
            )
        plain = self.base ** (-np.arange(0, width, 2) / width)
        return plain if self.scaling is None else self.scaling(plain, self.base)


class RoPELayer(RelativeLayer):
    def __init__(self, spec: RoPE, head_width: int):
        self.scaling = spec.scaling
        self.frequencies = tuple(spec.frequencies(head_width).tolist())
        self.magnitude = 1.0 if spec.scaling is None else spec.scaling.magnitude()

    def rotate(self, x: Float[Array, "B L H P"], positions: Int[Array, "B L"]) -> Float[Array, "B L H P"]:
        half = len(self.frequencies)
        frequencies = jnp.asarray(self.frequencies, jnp.float32)
        if self.scaling is not None:
            frequencies = self.scaling.at(frequencies, 1 + positions.max(axis=1)[:, None, None, None])
        angle = positions[:, :, None, None].astype(jnp.float32) * frequencies
        cos, sin = jnp.cos(angle) * self.magnitude, jnp.sin(angle) * self.magnitude
        turned, rest = x[..., : 2 * half].astype(jnp.float32), x[..., 2 * half :]
        a, b = turned[..., :half], turned[..., half:]
        turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
        return jnp.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned

    def scale(self, width: int) -> float:
        return super().scale(width) * (1.0 if self.scaling is None else self.scaling.emphasis())
