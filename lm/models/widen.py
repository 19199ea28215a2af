"""The same model at another width: what `lm.train.parametrization` compares, and sweeps over width."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

from lm.config import ConfigError, replace
from lm.models.decoder import Decoder
from lm.nn.attention import Attention
from lm.nn.block import Block
from lm.nn.feedforward import MLP, FeedForward, GatedMLP
from lm.nn.mixer import Mixer

Heads = Literal["more", "wider"]


def widened(model: Decoder, width: int, heads: Heads = "more") -> Decoder:
    """`model` with this width and all its inner widths in proportion; depth and vocabulary stay.

    heads: with the width heads become more, each as wide as before, or wider, as many as before. A single key and
    value head (MQA) stays one. Raises ConfigError where a size wouldn't be whole, or for a component whose sizes it
    doesn't know.
    """
    by = Fraction(width, model.width)
    blocks = tuple(_block(block, by, heads) for block in model.pattern)
    return replace(model, {"width": width, "block": blocks if isinstance(model.block, tuple) else blocks[0]})


def _block(block: Block, by: Fraction, heads: Heads) -> Block:
    return replace(block, {"mixer": _mixer(block.mixer, by, heads), "ff": _feedforward(block.ff, by)})


def _mixer(mixer: Mixer, by: Fraction, heads: Heads) -> Mixer:
    if not isinstance(mixer, Attention):
        raise _unknown(mixer)
    if heads == "wider":
        return mixer if mixer.head_width is None else replace(mixer, {"head_width": _times(mixer, "head_width", by)})
    kv_heads = 1 if mixer.kv_heads == 1 else _times(mixer, "kv_heads", by)
    return replace(mixer, {"heads": _times(mixer, "heads", by), "kv_heads": kv_heads})


def _feedforward(ff: FeedForward | None, by: Fraction) -> FeedForward | None:
    if ff is None:
        return None
    if not isinstance(ff, MLP | GatedMLP):
        raise _unknown(ff)
    return replace(ff, {"hidden": _times(ff, "hidden", by)})


def _times(part: Any, field: str, by: Fraction) -> int:
    size = getattr(part, field) * by
    if size.denominator != 1:
        raise ConfigError(
            f"{type(part).__name__}.{field}={getattr(part, field)} times {by} isn't whole; take widths for which it is"
        )
    return int(size)


def _unknown(part: Any) -> ConfigError:
    return ConfigError(f"how {type(part).__name__} grows with the width isn't known here; write the wider model out")
