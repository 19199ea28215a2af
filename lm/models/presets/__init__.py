"""Models of published shapes by name.

model = preset("pythia-70m")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lm.config import ConfigError, unknown
from lm.models.model import Model
from lm.models.presets.decoders import DECODERS, gpt2_style, llama_style, pythia_style
from lm.models.presets.encoder_decoders import ENCODER_DECODERS, bart_style, t5_style, transformer_style

__all__ = [
    "DECODERS", "ENCODER_DECODERS", "PRESETS", "bart_style", "gpt2_style", "llama_style", "preset", "pythia_style",
    "t5_style", "transformer_style",
]  # fmt: skip

PRESETS: Mapping[str, Callable[[], Model]] = {**DECODERS, **ENCODER_DECODERS}


def preset(name: str) -> Model:
    """The model of that name in `PRESETS`. Raises ConfigError with the nearest name where there is none."""
    if name not in PRESETS:
        raise ConfigError(unknown(name, PRESETS, "there is no preset"))
    return PRESETS[name]()
