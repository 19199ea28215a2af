"""Models of published shapes by name.

model = preset("pythia-70m")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lm.config import ConfigError, unknown
from lm.models.model import Model
from lm.models.presets.decoders import DECODERS, gpt2_style, llama_style, pythia_style
from lm.models.presets.encoder_decoders import ENCODER_DECODERS, bart_style, t5_style, transformer_style
from lm.models.presets.encoders import ENCODERS, bert_style, masked_lm, modernbert_style, replaced_token_detector
from lm.models.presets.experts import EXPERTS, deepseek_style, with_experts
from lm.models.presets.history import HISTORY, gopher_style, gpt1_style, gptj_style, neox_style, palm_style
from lm.models.presets.modern import (
    MODERN,
    baichuan_style,
    bloom_style,
    falcon_style,
    gemma2_style,
    gemma3_style,
    gemma_style,
    glm_style,
    granite_style,
    llada_style,
    mistral_style,
    olmo2_style,
    qwen2_style,
    qwen3_style,
)
from lm.models.presets.state_space import STATE_SPACE, mamba2_style, mamba_style

__all__ = [
    "DECODERS", "ENCODERS", "ENCODER_DECODERS", "EXPERTS", "HISTORY", "MODERN", "PRESETS", "STATE_SPACE",
    "baichuan_style", "bart_style", "bert_style", "bloom_style", "deepseek_style", "falcon_style", "gemma2_style",
    "gemma3_style", "gemma_style", "glm_style", "gopher_style", "gpt1_style", "gpt2_style", "gptj_style",
    "granite_style", "llada_style", "llama_style", "mamba2_style", "mamba_style", "masked_lm", "mistral_style",
    "modernbert_style", "neox_style", "olmo2_style", "palm_style", "preset", "pythia_style", "qwen2_style",
    "qwen3_style", "replaced_token_detector", "t5_style", "transformer_style", "with_experts",
]  # fmt: skip

PRESETS: Mapping[str, Callable[[], Model]] = {
    **DECODERS, **HISTORY, **MODERN, **EXPERTS, **STATE_SPACE, **ENCODERS, **ENCODER_DECODERS,
}  # fmt: skip


def preset(name: str) -> Model:
    """The model of that name in `PRESETS`. Raises ConfigError with the nearest name where there is none."""
    if name not in PRESETS:
        raise ConfigError(unknown(name, PRESETS, "there is no preset"))
    return PRESETS[name]()
