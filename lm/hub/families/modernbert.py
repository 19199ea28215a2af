"""ModernBERT (Warner et al. 2024): local and global attention with RoPE, gated feed-forward layers, norms first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lm.hub import activations, rope
from lm.hub.families.encoders import EncoderFamily, Masked, Task, labels
from lm.hub.families.llama import FULL, SLIDING, layer_types
from lm.hub.family import Rule, Unfit, joined, layered, linear, norm, same
from lm.hub.fields import Fields
from lm.hub.forms import Table
from lm.models.encoder import Encoder
from lm.models.heads import Classifier, First, Head, MaskedLM, Mean, Pooling
from lm.models.stack import grouped
from lm.nn.attention import Attention
from lm.nn.block import Block, PreNorm
from lm.nn.feedforward import Activation, GatedMLP
from lm.nn.mask import Mask
from lm.nn.norms import LayerNorm
from lm.nn.rope import RoPE

BASES = {FULL: ("global_rope_theta", 160000.0), SLIDING: ("local_rope_theta", 10000.0)}
POOLINGS: dict[str, Pooling] = {"cls": First(), "mean": Mean()}


def read_transform(fields: Fields) -> tuple[Activation, bool]:
    """Activation and bias of the layer that every head has before its last map; its norm is that of all others."""
    return activations.read(fields, "classifier_activation", "gelu"), fields("classifier_bias", False)


def write_transform(activation: Activation, bias: bool) -> dict[str, Any]:
    return {"classifier_activation": activations.write(activation), "classifier_bias": bias}


@dataclass(frozen=True, kw_only=True)
class ModernMasked(Masked):
    dense: str = "head.dense"
    norm: str = "head.norm"
    table: str = "decoder"
    bias: str = "decoder.bias"

    def read(self, fields: Fields, body: Encoder) -> MaskedLM:
        fields.only("decoder_bias", True)
        activation, bias = read_transform(fields)
        return MaskedLM(activation=activation, norm=body.norm, bias=bias, tied=fields("tie_word_embeddings", True))

    def write(self, head: Head) -> dict[str, Any] | None:
        if not isinstance(head, MaskedLM):
            return None
        return {"tie_word_embeddings": head.tied} | write_transform(head.activation, head.bias)


@dataclass(frozen=True)
class ModernClasses(Task):
    """pooled: one class for a row, otherwise one for each token."""

    pooled: bool

    def read(self, fields: Fields, body: Encoder) -> Classifier:
        fields.skip("tie_word_embeddings")
        activation, bias = read_transform(fields)
        return Classifier(
            labels=labels(fields),
            pooling=POOLINGS[fields.only("classifier_pooling", *POOLINGS)] if self.pooled else None,
            inner=activation,
            inner_norm=body.norm,
            inner_bias=bias,
        )

    def write(self, head: Head) -> dict[str, Any] | None:
        if not isinstance(head, Classifier) or head.inner is None or (head.pooling in POOLINGS.values()) != self.pooled:
            return None
        fields = {"num_labels": head.labels} | write_transform(head.inner, head.inner_bias)
        names = [name for name, pooling in POOLINGS.items() if pooling == head.pooling]
        return fields | ({"classifier_pooling": names[0]} if names else {})

    def rules(self, head: Classifier, body: Encoder) -> Iterator[Rule]:
        yield from linear("transform.dense", "head.dense", bias=head.inner_bias)
        yield from norm("transform.norm", "head.norm", head.inner_norm)
        yield same("weight", "classifier.weight")
        yield same("bias", "classifier.bias")


class ModernBert(EncoderFamily):
    types = ("modernbert",)
    name = "ModernBert"
    prefix = "model."
    table = "embeddings.tok_embeddings.weight"
    tasks: ClassVar = {
        "MaskedLM": ModernMasked(),
        "SequenceClassification": ModernClasses(pooled=True),
        "TokenClassification": ModernClasses(pooled=False),
    }

    def read_body(self, fields: Fields) -> Encoder:
        # ways to compute, and fields that transformers doesn't read
        fields.skip("reference_compile", "deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index")
        fields.skip("repad_logits_with_grad", "layer_norm_eps", "position_embedding_type", "max_position_embeddings")
        fields.skip("decoder_bias", "classifier_pooling", "classifier_activation", "classifier_bias")  # of heads
        layers, every = fields("num_hidden_layers", 22), fields("global_attn_every_n_layers", 3)
        kinds = layer_types(fields, [SLIDING if i % every else FULL for i in range(layers)])
        layer_norm = LayerNorm(epsilon=fields("norm_eps", 1e-5), bias=fields("norm_bias", False))
        ff = GatedMLP(
            hidden=fields("intermediate_size", 1152),
            activation=activations.read(fields, "hidden_activation", "gelu"),
            bias=fields("mlp_bias", False),
        )
        first, others = PreNorm(unnormed=("mixer",)), PreNorm()
        blocks = [
            Block(mixer=self.mixer(fields, kind), ff=ff, norm=layer_norm, residual=others if i else first)
            for i, kind in enumerate(kinds)
        ]
        return Encoder(
            vocab=fields("vocab_size", 50368),
            width=fields("hidden_size", 768),
            embed_norm=layer_norm,
            norm=layer_norm,
            **grouped(blocks),
        )

    def mixer(self, fields: Fields, kind: str) -> Attention:
        """A local layer sees half of `local_attention` to each side."""
        heads, bias = fields("num_attention_heads", 12), fields("attention_bias", False)
        reach = fields("local_attention", 128) // 2
        bases = {layers: fields(*base) for layers, base in BASES.items()}
        return Attention(
            heads=heads,
            kv_heads=heads,
            position=rope.read(fields, base=bases[kind], layers=kind),
            mask=Mask(causal=False, window=reach + 1 if kind == SLIDING else None),
            bias=bias,
            output_bias=bias,
        )

    def write_body(self, body: Encoder) -> dict[str, Any]:
        blocks = body.each()
        mixers: list[Any] = [block.mixer for block in blocks]
        if not all(isinstance(mixer, Attention) and isinstance(mixer.position, RoPE) for mixer in mixers):
            raise Unfit("not every layer is attention with RoPE")
        windows = [mixer.mask.window for mixer in mixers]
        kinds = [FULL if window is None else SLIDING for window in windows]
        match blocks[0].ff, body.norm:
            case GatedMLP() as ff, LayerNorm() as layer_norm:
                return {
                    "vocab_size": body.vocab,
                    "hidden_size": body.width,
                    "num_hidden_layers": body.layers,
                    "layer_types": kinds,
                    "local_attention": 2 * max((window - 1 for window in windows if window), default=64),
                    "num_attention_heads": mixers[0].heads,
                    "attention_bias": mixers[0].bias,
                    "rope_parameters": {k: rope.write(m.position) for k, m in zip(kinds, mixers, strict=True)},
                    "intermediate_size": ff.hidden,
                    "hidden_activation": activations.write(ff.activation),
                    "mlp_bias": ff.bias,
                    "norm_eps": layer_norm.epsilon,
                    "norm_bias": layer_norm.bias,
                }
        raise Unfit("it is no encoder of gated feed-forward layers and LayerNorm")

    def body_rules(self, body: Encoder) -> Iterator[Rule]:
        yield Rule(("embedding",), (self.table,), Table(body.vocab))
        yield from norm("embed_norm", "embeddings.norm", body.embed_norm)
        yield from norm("norm", "final_norm", body.norm)
        yield from layered(body, "layers.{}.", self.layer)

    def layer(self, block: Block) -> Iterator[Rule]:
        mixer: Any = block.mixer
        ff: Any = block.ff
        yield from joined(("mixer.query", "mixer.key", "mixer.value"), "attn.Wqkv", bias=mixer.bias)
        yield from linear("mixer.out", "attn.Wo", bias=mixer.output_bias, inputs=2)
        yield from joined(("ff.gate", "ff.up"), "mlp.Wi", bias=ff.bias)
        yield from linear("ff.down", "mlp.Wo", bias=ff.bias)
        for name in block.residual.norms(block.parts):
            yield from norm(f"norms.{name}", {"mixer": "attn_norm", "ff": "mlp_norm"}[name], block.norm)
