"""Llama 1, 2 and 3 (Touvron et al. 2023; Dubey et al. 2024), and what all families of its shape have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from lm.hub import activations, rope
from lm.hub.family import Family, Rule, Unfit, layered, linear, norm
from lm.hub.fields import Fields
from lm.hub.forms import Table
from lm.models.decoder import Decoder
from lm.nn.attention import Attention
from lm.nn.block import Block
from lm.nn.feedforward import FeedForward, GatedMLP
from lm.nn.norms import RMSNorm
from lm.nn.rope import RoPE

NORMS = {"mixer": "input_layernorm", "ff": "post_attention_layernorm"}


class Llama(Family):
    types = ("llama",)
    ignored = (".rotary_emb.inv_freq",)
    architecture: ClassVar[str] = "LlamaForCausalLM"
    norms: ClassVar[dict[str, str]] = NORMS  # ours -> theirs

    def read(self, fields: Fields) -> Decoder:
        fields.skip("max_position_embeddings", "pretraining_tp")
        epsilon = fields("rms_norm_eps", 1e-6)
        norm = RMSNorm(epsilon=epsilon)
        return Decoder(
            vocab=fields("vocab_size", 32000),
            width=fields("hidden_size", 4096),
            layers=fields("num_hidden_layers", 32),
            block=Block(mixer=self.mixer(fields), ff=self.ff(fields), norm=norm),
            norm=norm,
            tied=fields("tie_word_embeddings", False),
        )

    def mixer(self, fields: Fields) -> Attention:
        heads, bias = fields("num_attention_heads", 32), fields("attention_bias", False)
        return Attention(
            heads=heads,
            kv_heads=fields("num_key_value_heads", heads),
            head_width=head_width(fields, heads),
            position=rope.read(fields),
            bias=bias,
            output_bias=bias,
        )

    def ff(self, fields: Fields) -> FeedForward:
        activation = activations.read(fields, "hidden_act", "silu")
        return GatedMLP(
            hidden=fields("intermediate_size", 11008), activation=activation, bias=fields("mlp_bias", False)
        )

    def write(self, spec: Any) -> dict[str, Any]:
        match spec:
            case Decoder(
                block=Block(mixer=Attention(position=RoPE() as position) as mixer, ff=GatedMLP() as ff), norm=RMSNorm()
            ):
                return {
                    "model_type": self.types[0],
                    "architectures": [self.architecture],
                    "vocab_size": spec.vocab,
                    "hidden_size": spec.width,
                    "num_hidden_layers": spec.layers,
                    "rms_norm_eps": spec.norm.epsilon,
                    "tie_word_embeddings": spec.tied,
                    "num_attention_heads": mixer.heads,
                    "num_key_value_heads": mixer.kv_heads,
                    "head_dim": mixer.width_of_head(spec.width),
                    "attention_bias": mixer.bias,
                    "rope_parameters": rope.write(position),
                    "intermediate_size": ff.hidden,
                    "hidden_act": activations.write(ff.activation, "silu"),
                    "mlp_bias": ff.bias,
                }
        raise Unfit("it is no decoder of attention with RoPE, gated feed-forward layers and RMSNorm")

    def rules(self, spec: Decoder) -> Iterable[Rule]:
        yield Rule(("embedding",), ("model.embed_tokens.weight",), Table(spec.vocab))
        yield from norm("norm", "model.norm", spec.norm)
        if not spec.tied:
            yield Rule(("unembedding",), ("lm_head.weight",), Table(spec.vocab))
        yield from layered(spec, "model.layers.{}.", self.layer)

    def layer(self, block: Block) -> Iterator[Rule]:
        yield from self.attention(block.mixer)
        yield from self.feedforward(block.ff)
        for name in block.residual.norms(block.parts):
            yield from norm(f"norms.{name}", self.norms[name], block.norm)

    def attention(self, mixer: Any) -> Iterator[Rule]:
        for ours, theirs in {"query": "q_proj", "key": "k_proj", "value": "v_proj"}.items():
            yield from linear(f"mixer.{ours}", f"self_attn.{theirs}", bias=mixer.bias)
        yield from linear("mixer.out", "self_attn.o_proj", bias=mixer.output_bias, inputs=2)
        yield from norm("mixer.query_norm", "self_attn.q_norm", mixer.qk_norm)
        yield from norm("mixer.key_norm", "self_attn.k_norm", mixer.qk_norm)

    def feedforward(self, ff: Any) -> Iterator[Rule]:
        for part in ("gate", "up", "down"):
            yield from linear(f"ff.{part}", f"mlp.{part}_proj", bias=ff.bias)


def head_width(fields: Fields, heads: int) -> int | None:
    """`head_dim` where it isn't width / heads."""
    plain = fields("hidden_size", 4096) / heads
    width = fields("head_dim", plain)
    return None if width == plain else width
