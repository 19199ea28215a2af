"""BERT (Devlin et al. 2018) and RoBERTa (Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from lm.hub import activations
from lm.hub.families.encoders import Classes, EncoderFamily, Masked
from lm.hub.family import Rule, Unfit, layered, linear, norm, same
from lm.hub.fields import Fields
from lm.hub.forms import After, Form, Same, Table
from lm.models.encoder import Encoder
from lm.models.heads import First
from lm.nn.attention import Attention
from lm.nn.block import Block, PostNorm
from lm.nn.feedforward import MLP, Tanh
from lm.nn.mask import Mask
from lm.nn.norms import LayerNorm
from lm.nn.positions import Learned

TOKENS = Classes(out="classifier")


def of(linear: str) -> tuple[str, str]:
    """Its tensors' names."""
    return f"{linear}.weight", f"{linear}.bias"


class Bert(EncoderFamily):
    """Subclasses replace names. sizes: our name of a number to its field and that field's default."""

    types = ("bert",)
    # buffers, and heads that this model isn't asked for
    ignored = (".position_ids", *of("pooler.dense"), *of("seq_relationship"))
    name = "Bert"
    prefix = "bert."
    table = "embeddings.word_embeddings.weight"
    tasks: ClassVar = {
        "MaskedLM": Masked(
            dense="cls.predictions.transform.dense",
            norm="cls.predictions.transform.LayerNorm",
            table="cls.predictions.decoder",
            bias="cls.predictions.bias",
            activation=None,
        ),
        "SequenceClassification": Classes(
            out="classifier", pooling=First(), dense="bert.pooler.dense", activation=Tanh()
        ),
        "TokenClassification": TOKENS,
    }
    read_as: ClassVar = {"PreTraining": "MaskedLM", **EncoderFamily.read_as}
    sizes: ClassVar[dict[str, tuple[str, Any]]] = {
        "vocab": ("vocab_size", 30522),
        "width": ("hidden_size", 768),
        "layers": ("num_hidden_layers", 12),
        "heads": ("num_attention_heads", 12),
        "hidden": ("intermediate_size", 3072),
        "length": ("max_position_embeddings", 512),
        "types": ("type_vocab_size", 2),
        "epsilon": ("layer_norm_eps", 1e-12),
    }
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "gelu")
    unused_positions: ClassVar[int] = 0
    stack: ClassVar[str] = "encoder.layer.{}."
    projection: ClassVar[str] = "embeddings_project"
    linears: ClassVar[dict[str, str]] = {
        "mixer.query": "attention.self.query",
        "mixer.key": "attention.self.key",
        "mixer.value": "attention.self.value",
        "mixer.out": "attention.output.dense",
        "ff.up": "intermediate.dense",
        "ff.down": "output.dense",
    }
    norms: ClassVar[dict[str, str]] = {"mixer": "attention.output.LayerNorm", "ff": "output.LayerNorm"}

    def read_body(self, fields: Fields) -> Encoder:
        for name in ("is_decoder", "add_cross_attention"):
            fields.only(name, False)
        fields.only("position_embedding_type", "absolute")
        fields.only("pruned_heads", {})
        # of BERT's first releases; transformers has never read them
        fields.skip("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers")
        fields.skip("pooler_size_per_head", "pooler_type")
        size = {ours: fields(*theirs) for ours, theirs in self.sizes.items()}
        layer_norm = LayerNorm(epsilon=size.get("epsilon", 1e-12))
        return Encoder(
            vocab=size["vocab"],
            width=size["width"],
            layers=size["layers"],
            block=Block(
                mixer=Attention(
                    heads=size["heads"],
                    kv_heads=size["heads"],
                    position=None,
                    mask=Mask(causal=False),
                    bias=True,
                    output_bias=True,
                ),
                ff=MLP(hidden=size["hidden"], activation=activations.read(fields, *self.activation), bias=True),
                norm=layer_norm,
                residual=PostNorm(),
            ),
            position=Learned(length=size["length"] - self.unused_positions),
            embed_norm=layer_norm,
            norm=None,
            types=size.get("types", 0),
            **self.read_more(fields),
        )

    def read_more(self, fields: Fields) -> dict[str, Any]:
        """Other fields of the encoder."""
        del fields
        return {}

    def write_body(self, body: Encoder) -> dict[str, Any]:
        match body.each()[0], body.position:
            case Block(mixer=Attention(heads=heads), ff=MLP() as ff, norm=LayerNorm(epsilon=epsilon)), Learned() as at:
                size = {"vocab": body.vocab, "width": body.width, "layers": body.layers, "types": body.types}
                size |= {"heads": heads, "hidden": ff.hidden, "epsilon": epsilon}
                size |= {"length": at.length + self.unused_positions}
                field, prefer = self.activation
                written = {theirs: size[ours] for ours, (theirs, _) in self.sizes.items()}
                return written | {field: activations.write(ff.activation, prefer)} | self.write_more(body)
        raise Unfit("it is no encoder of attention and plain feed-forward layers with learned positions")

    def write_more(self, body: Encoder) -> dict[str, Any]:
        del body
        return {}

    def body_rules(self, body: Encoder) -> Iterator[Rule]:
        yield Rule(("embedding",), (self.table,), Table(body.vocab))
        positions: Form = After(self.unused_positions) if self.unused_positions else Same()
        yield Rule(("position.table",), ("embeddings.position_embeddings.weight",), positions)
        if body.types:
            yield same("types", "embeddings.token_type_embeddings.weight")
        yield from norm("embed_norm", "embeddings.LayerNorm", body.embed_norm)
        if body.embed_width is not None:
            yield from linear("project", self.projection, bias=True)
        yield from layered(self.stored(body), self.stack, self.layer)

    def stored(self, body: Encoder) -> Encoder:
        """With the layers that have tensors of their own."""
        return body

    def layer(self, block: Block) -> Iterator[Rule]:
        for ours, theirs in self.linears.items():
            yield from linear(ours, theirs, bias=True, inputs=2 if ours == "mixer.out" else 1)
        for ours, theirs in self.norms.items():
            yield from norm(f"norms.{ours}", theirs, block.norm)

    def renamed(self, spec: Any, name: str) -> str:
        for old, new in {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}.items():
            name = name.replace(old, new)
        return super().renamed(spec, name.replace("qa_outputs.", "classifier."))


class Roberta(Bert):
    """Liu et al. 2019. Its positions count from after the padding token's number."""

    types = ("roberta",)
    name = "Roberta"
    prefix = "roberta."
    sizes: ClassVar = {**Bert.sizes, "vocab": ("vocab_size", 50265)}
    unused_positions = 2
    tasks: ClassVar = {
        "MaskedLM": Masked(
            dense="lm_head.dense", norm="lm_head.layer_norm", table="lm_head.decoder", bias="lm_head.bias"
        ),
        "SequenceClassification": Classes(
            out="classifier.out_proj", pooling=First(), dense="classifier.dense", activation=Tanh()
        ),
        "TokenClassification": TOKENS,
    }
    read_as: ClassVar = EncoderFamily.read_as

    def read_more(self, fields: Fields) -> dict[str, Any]:
        fields.only("pad_token_id", self.unused_positions - 1)
        return {}

    def write_more(self, body: Encoder) -> dict[str, Any]:
        return {"pad_token_id": self.unused_positions - 1}


class XLMRoberta(Roberta):
    """Conneau et al. 2019: RoBERTa of a hundred languages."""

    types = ("xlm-roberta",)
    name = "XLMRoberta"
    sizes: ClassVar = Bert.sizes


class Camembert(Roberta):
    """Martin et al. 2019: RoBERTa of French."""

    types = ("camembert",)
    name = "Camembert"
    sizes: ClassVar = Bert.sizes
