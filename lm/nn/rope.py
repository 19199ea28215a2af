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
    """Changes the frequencies so that `factor` times longer texts stay in the range that was trained."""

    factor: float

    def __post_init__(self) -> None:
        for name in ("factor", "original_length"):
            value = getattr(self, name, 1)
            if value <= 0:
                raise ConfigError(f"{type(self).__name__}: {name}={value} must be above 0")

    @abc.abstractmethod
    def __call__(self, frequencies: Frequencies, base: float) -> Frequencies: ...

    def magnitude(self) -> float:
        """What the rotated vectors are multiplied by."""
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
class YaRN(RoPEScaling):
    """Interpolates slow frequencies only, ramped by how often they turn in `original_length` (Peng et al. 2023, 3.2).

    attention_factor multiplies the rotated vectors; None is the paper's 0.1 ln(factor) + 1 (equation 22).
    """

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def __call__(self, frequencies: Frequencies, base: float) -> Frequencies:
        width = 2 * len(frequencies)

        def index(turns: float) -> float:  # which dimension turns this often in the original length
            return width * math.log(self.original_length / (turns * 2 * math.pi)) / (2 * math.log(base))

        low = max(math.floor(index(self.beta_fast)), 0)
        high = min(math.ceil(index(self.beta_slow)), width - 1)
        ramp = np.clip((np.arange(width // 2) - low) / max(high - low, 0.001), 0, 1)
        return frequencies / self.factor * ramp + frequencies * (1 - ramp)

    def magnitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0


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
        self.frequencies = tuple(spec.frequencies(head_width).tolist())
        self.magnitude = 1.0 if spec.scaling is None else spec.scaling.magnitude()

    def rotate(self, x: Float[Array, "B L H P"], positions: Int[Array, "B L"]) -> Float[Array, "B L H P"]:
        half = len(self.frequencies)
        angle = positions[:, :, None, None].astype(jnp.float32) * jnp.asarray(self.frequencies, jnp.float32)
        cos, sin = jnp.cos(angle) * self.magnitude, jnp.sin(angle) * self.magnitude
        turned, rest = x[..., : 2 * half].astype(jnp.float32), x[..., 2 * half :]
        a, b = turned[..., :half], turned[..., half:]
        turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
        return jnp.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned
