"""Gemma 1, 2 and 3, text only (Gemma Team 2024, 2025)."""

from __future__ import annotations

import math
from typing import Any

from lm.hub import activations, rope
from lm.hub.families.llama import FULL, SLIDING, Llama, layer_types, write_windows
from lm.hub.fields import Fields
from lm.models.decoder import Decoder
from lm.nn.block import Residual, Sandwich
from lm.nn.feedforward import FeedForward, GatedMLP
from lm.nn.norms import Norm, RMSNorm
from lm.nn.rope import RoPE


class Gemma(Llama):
    """The norms' scales are 1 + w, embeddings are multiplied by sqrt(width), GeGLU, wide heads."""

    types = ("gemma",)
    architecture = "GemmaForCausalLM"
    vocab, width, depth, hidden, head, tied, ff_biases = 256000, 3072, 28, 24576, 256, True, False

    def norm(self, fields: Fields) -> Norm:
        return RMSNorm(epsilon=fields("rms_norm_eps", self.epsilon), zero_centered=True)

    def trunk(self, fields: Fields) -> dict[str, Any]:
        fields.only("use_bidirectional_attention", False)
        return {"embed_scale": None}

    def heads(self, fields: Fields) -> tuple[int, int]:
        return fields("num_attention_heads", 16), fields("num_key_value_heads", 16)

    def ff(self, fields: Fields, i: int) -> FeedForward:
        field = "hidden_activation" if fields("hidden_activation", None) else "hidden_act"
        fields.skip("hidden_act", "hidden_activation")
        activation = activations.read(fields, field, "gelu_pytorch_tanh")
        if field == "hidden_act" and fields(field, "") == "gelu":  # the releases say so and mean the tanh form
            activation = activations.NAMES["gelu_pytorch_tanh"]
        return GatedMLP(hidden=fields("intermediate_size", self.hidden), activation=activation)

    def write_ffs(self, ffs: list[Any]) -> dict[str, Any]:
        return super().write_ffs(ffs) | {"hidden_act": activations.write(ffs[0].activation, "gelu_pytorch_tanh")}


class Gemma2(Gemma):
    """Norms before and after each part, a window in every other layer, capped scores and logits."""

    types = ("gemma2",)
    architecture = "Gemma2ForCausalLM"
    width, depth, hidden = 2304, 26, 9216
    logit_cap: float | None = 30.0
    score_cap: float | None = 50.0
    norms = {  # noqa: RUF012
        "mixer": "input_layernorm", "mixer_out": "post_attention_layernorm",
        "ff": "pre_feedforward_layernorm", "ff_out": "post_feedforward_layernorm",
    }  # fmt: skip

    def residual(self, fields: Fields) -> Residual:
        return Sandwich()

    def trunk(self, fields: Fields) -> dict[str, Any]:
        return super().trunk(fields) | {"softcap": fields.nullable("final_logit_softcapping", self.logit_cap)}

    def heads(self, fields: Fields) -> tuple[int, int]:
        return fields("num_attention_heads", 8), fields("num_key_value_heads", 4)

    def attention(self, fields: Fields) -> dict[str, Any]:
        return {
            "scale": 1 / math.sqrt(fields("query_pre_attn_scalar", 256)),
            "softcap": fields.nullable("attn_logit_softcapping", self.score_cap),
        }

    def period(self, fields: Fields) -> int:
        """Every so manieth layer has no window."""
        del fields
        return 2

    def kind(self, fields: Fields, i: int) -> str:
        period, depth = self.period(fields), fields("num_hidden_layers", self.depth)
        return layer_types(fields, [SLIDING if (j + 1) % period else FULL for j in range(depth)])[i]

    def window(self, fields: Fields, i: int) -> int | None:
        window = fields("sliding_window", 4096)
        fields.skip("sliding_window_size")  # the first files say it twice
        return window if self.kind(fields, i) == SLIDING else None

    def write(self, spec: Any) -> dict[str, Any]:
        found, mixers = super().write(spec), [block.mixer for block in spec.each()]
        scale = mixers[0].scale
        return found | {
            "hidden_activation": found.pop("hidden_act"),
            "final_logit_softcapping": spec.softcap,
            "attn_logit_softcapping": mixers[0].softcap,
            "query_pre_attn_scalar": mixers[0].width_of_head(spec.width) if scale is None else _square(1 / scale),
        }

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        return super().write_mixers(spec, mixers) | write_windows(mixers)


def _square(root: float) -> float:
    """Of a square root; whole where it is one."""
    return round(root**2) if math.isclose(root**2, round(root**2), rel_tol=1e-12) else root**2


class Gemma3(Gemma2):
    """Five layers with a window and a rotary base of their own to one without; norms on queries and keys, no caps."""

    types = ("gemma3_text",)
    architecture = "Gemma3ForCausalLM"
    vocab = 262208
    logit_cap = score_cap = None

    def attention(self, fields: Fields) -> dict[str, Any]:
        return super().attention(fields) | {"qk_norm": self.norm(fields)}

    def period(self, fields: Fields) -> int:
        old, new = fields("sliding_window_pattern", None), fields("_sliding_window_pattern", None)
        return old or new or 6

    def position(self, fields: Fields, i: int) -> RoPE:
        kind = self.kind(fields, i)
        local = fields("rope_local_base_freq", 10000.0)
        if kind == SLIDING and not (fields("rope_parameters", None) or {}).get(SLIDING):
            return RoPE(base=local)
        return rope.read(fields, base=1e6, layers=kind)

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        found = super().write_mixers(spec, mixers)
        kinds = zip(found["layer_types"], mixers, strict=True)
        return found | {"rope_parameters": {kind: rope.write(mixer.position) for kind, mixer in kinds}}
