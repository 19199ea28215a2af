"""Families that differ from Llama in a few parts: Mistral, Qwen 2 and 3, Granite, OLMo 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from lm.hub.families.llama import FULL, SLIDING, Llama, layer_types, write_windows
from lm.hub.family import Rule, same
from lm.hub.fields import Fields
from lm.models.decoder import Decoder
from lm.nn.block import OutputNorm, PreNorm, Residual
from lm.nn.head_norm import AcrossHeads


def not_said(config: dict[str, Any], *names: str) -> dict[str, Any]:
    """A config without fields that a family doesn't have."""
    return {name: value for name, value in config.items() if name not in names}


class Mistral(Llama):
    """Jiang et al. 2023: a window in every layer, grouped queries."""

    types = ("mistral",)
    architecture = "MistralForCausalLM"
    hidden, ff_biases = 14336, False
    sliding: ClassVar[int | None] = 4096  # where the file says nothing

    def heads(self, fields: Fields) -> tuple[int, int]:
        heads = fields("num_attention_heads", 32)
        return heads, fields("num_key_value_heads", 8)

    def window(self, fields: Fields, i: int) -> int | None:
        return fields.nullable("sliding_window", self.sliding)

    def biases(self, fields: Fields) -> dict[str, bool]:
        return {}

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        found = not_said(super().write_mixers(spec, mixers), "attention_bias")
        return found | {"sliding_window": mixers[0].mask.window}


class Qwen2(Llama):
    """Qwen 1.5, 2 and 2.5 (Yang et al. 2024): biases on queries, keys and values."""

    types = ("qwen2",)
    architecture = "Qwen2ForCausalLM"
    vocab, hidden, ff_biases = 151936, 22016, False

    def window(self, fields: Fields, i: int) -> int | None:
        window = fields("sliding_window", 4096) if fields("use_sliding_window", False) else None
        fields.skip("sliding_window")
        from_layer, depth = fields("max_window_layers", 28), fields("num_hidden_layers", self.depth)
        plain = [FULL if window is None or layer < from_layer else SLIDING for layer in range(depth)]
        return window if layer_types(fields, plain)[i] == SLIDING else None

    def biases(self, fields: Fields) -> dict[str, bool]:
        return {"bias": True}

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        windows = write_windows(mixers)
        found = not_said(super().write_mixers(spec, mixers), "attention_bias")
        return found | windows | {"use_sliding_window": SLIDING in windows["layer_types"]}


class Qwen3(Qwen2):
    """Qwen3 (Yang et al. 2025): a norm on each query and key head."""

    types = ("qwen3",)
    architecture = "Qwen3ForCausalLM"
    head = 128

    def biases(self, fields: Fields) -> dict[str, bool]:
        return Llama.biases(self, fields)

    def attention(self, fields: Fields) -> dict[str, Any]:
        return {"qk_norm": self.norm(fields)}

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        return super().write_mixers(spec, mixers) | {"attention_bias": mixers[0].bias}


class Granite(Llama):
    """IBM Granite 3: multipliers on embeddings, attention, residual branches and logits (those of muP)."""

    types = ("granite",)
    architecture = "GraniteForCausalLM"

    def residual(self, fields: Fields) -> Residual:
        return PreNorm(scale=fields("residual_multiplier", 1.0))

    def trunk(self, fields: Fields) -> dict[str, Any]:
        return {
            "embed_scale": fields("embedding_multiplier", 1.0),
            "logit_scale": 1 / fields("logits_scaling", 1.0),
        }

    def attention(self, fields: Fields) -> dict[str, Any]:
        return {"scale": fields("attention_multiplier", 1.0)}

    def write(self, spec: Any) -> dict[str, Any]:
        return super().write(spec) | {
            "embedding_multiplier": spec.embed_scale,
            "logits_scaling": 1 / spec.logit_scale,
            "residual_multiplier": getattr(spec.each()[0].residual, "scale", None),
            "attention_multiplier": spec.each()[0].mixer.scale,
        }


class OLMo2(Llama):
    """OLMo 2 (Team OLMo 2025): what the parts give is normalised, and queries and keys over all heads together."""

    types = ("olmo2",)
    architecture = "Olmo2ForCausalLM"
    vocab, epsilon, ff_biases = 50304, 1e-5, False
    norms = {"mixer": "post_attention_layernorm", "ff": "post_feedforward_layernorm"}  # noqa: RUF012

    def residual(self, fields: Fields) -> Residual:
        return OutputNorm()

    def attention(self, fields: Fields) -> dict[str, Any]:
        return {"qk_norm": AcrossHeads(norm=self.norm(fields))}

    def qk_norm_rules(self, mixer: Any) -> Iterator[Rule]:
        yield same("mixer.query_norm.norm.scale", "self_attn.q_norm.weight")
        yield same("mixer.key_norm.norm.scale", "self_attn.k_norm.weight")
