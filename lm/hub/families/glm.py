"""GLM-4 and Phi-3: Llama's parts with several weights in one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lm.hub import rope
from lm.hub.errors import HubError
from lm.hub.families.llama import Llama
from lm.hub.families.llama_like import not_said
from lm.hub.family import Rule, linear
from lm.hub.fields import Fields
from lm.hub.forms import Dense, Flat, Joined, Unpaired
from lm.models.decoder import Decoder
from lm.nn.block import Residual, Sandwich
from lm.nn.rope import LongRoPE, RoPE

GATE_UP = Rule(("ff.gate.weight", "ff.up.weight"), ("mlp.gate_up_proj.weight",), Joined(Dense()))


class GLM(Llama):
    """GLM-4 9B (Team GLM 2024): neighbouring rotary pairs, on half of each head."""

    types = ("glm",)
    architecture = "GlmForCausalLM"
    vocab, depth, hidden, head, epsilon, ff_biases = 151552, 40, 13696, 128, 0.00000015625, False

    def heads(self, fields: Fields) -> tuple[int, int]:
        return fields("num_attention_heads", 32), fields("num_key_value_heads", 2)

    def position(self, fields: Fields, i: int) -> RoPE:
        return rope.read(fields, fraction=0.5)

    def biases(self, fields: Fields) -> dict[str, bool]:
        return {"bias": fields("attention_bias", True)}

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        found = super().write_mixers(spec, mixers)
        return found | {"rope_parameters": {"partial_rotary_factor": 1.0} | found["rope_parameters"]}

    def mixer_rules(self, spec: Decoder, mixer: Any) -> Iterator[Rule]:
        turned = 2 * len(mixer.position.frequencies(mixer.width_of_head(spec.width)))
        for ours, theirs in {"query": "q_proj", "key": "k_proj"}.items():
            name, tensor = f"mixer.{ours}", f"self_attn.{theirs}"
            yield Rule((f"{name}.weight",), (f"{tensor}.weight",), Unpaired(Dense(), turned))
            if mixer.bias:
                yield Rule((f"{name}.bias",), (f"{tensor}.bias",), Unpaired(Flat(), turned))
        yield from linear("mixer.value", "self_attn.v_proj", bias=mixer.bias)
        yield from linear("mixer.out", "self_attn.o_proj", inputs=2)

    def ff_rules(self, ff: Any) -> Iterator[Rule]:
        yield GATE_UP
        yield from linear("ff.down", "mlp.down_proj")


class GLM4(GLM):
    """GLM-4-0414 (2025): norms before and after each part."""

    types = ("glm4",)
    architecture = "Glm4ForCausalLM"
    norms = {  # noqa: RUF012
        "mixer": "input_layernorm", "mixer_out": "post_self_attn_layernorm",
        "ff": "post_attention_layernorm", "ff_out": "post_mlp_layernorm",
    }  # fmt: skip

    def residual(self, fields: Fields) -> Residual:
        return Sandwich()


class Phi3(Llama):
    """Phi-3 and Phi-4 (Abdin et al. 2024)."""

    types = ("phi3",)
    architecture = "Phi3ForCausalLM"
    vocab, width, hidden, epsilon, ff_biases = 32064, 3072, 8192, 1e-5, False

    def position(self, fields: Fields, i: int) -> RoPE:
        found = rope.read(fields, fraction=1.0, original=4096)
        if not isinstance(found.scaling, LongRoPE | None):
            raise HubError(f"{fields.where}: rope of {fields.type} is plain or longrope in transformers, no other")
        return found

    def window(self, fields: Fields, i: int) -> int | None:
        return fields.nullable("sliding_window", None)

    def biases(self, fields: Fields) -> dict[str, bool]:
        fields.only("attention_bias", False)
        for name in ("full_attn_mod", "interpolate_factor"):  # of Phi-4-mini's own code
            fields.only(name, 1)
        return {}

    def write_mixers(self, spec: Decoder, mixers: list[Any]) -> dict[str, Any]:
        found = not_said(super().write_mixers(spec, mixers), "attention_bias", "head_dim")
        scaling = mixers[0].position.scaling  # transformers takes 4096 where this field isn't outside
        original = (
            {"original_max_position_embeddings": scaling.original_length} if isinstance(scaling, LongRoPE) else {}
        )
        return found | {"sliding_window": mixers[0].mask.window} | original

    def mixer_rules(self, spec: Decoder, mixer: Any) -> Iterator[Rule]:
        joined = tuple(f"mixer.{name}.weight" for name in ("query", "key", "value"))
        yield Rule(joined, ("self_attn.qkv_proj.weight",), Joined(Dense()))
        yield from linear("mixer.out", "self_attn.o_proj", inputs=2)

    def ff_rules(self, ff: Any) -> Iterator[Rule]:
        yield GATE_UP
        yield from linear("ff.down", "mlp.down_proj")
