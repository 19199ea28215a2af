"""Encoders that differ from BERT in names and a few parts: DistilBERT, ELECTRA and ALBERT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from lm.hub.families.bert import TOKENS, Bert, of
from lm.hub.families.encoders import EXACT_GELU, Classes, EncoderFamily, Masked
from lm.hub.fields import Fields
from lm.models.encoder import Encoder
from lm.models.heads import First
from lm.nn.feedforward import ReLU, Tanh


class DistilBert(Bert):
    """Sanh et al. 2019: no token types."""

    types = ("distilbert",)
    name = "DistilBert"
    prefix = "distilbert."
    sizes: ClassVar = {
        "vocab": ("vocab_size", 30522),
        "width": ("dim", 768),
        "layers": ("n_layers", 6),
        "heads": ("n_heads", 12),
        "hidden": ("hidden_dim", 3072),
        "length": ("max_position_embeddings", 512),
    }
    activation = ("activation", "gelu")
    stack = "transformer.layer.{}."
    linears: ClassVar = {
        "mixer.query": "attention.q_lin",
        "mixer.key": "attention.k_lin",
        "mixer.value": "attention.v_lin",
        "mixer.out": "attention.out_lin",
        "ff.up": "ffn.lin1",
        "ff.down": "ffn.lin2",
    }
    norms: ClassVar = {"mixer": "sa_layer_norm", "ff": "output_layer_norm"}
    tasks: ClassVar = {
        "MaskedLM": Masked(
            dense="vocab_transform",
            norm="vocab_layer_norm",
            table="vocab_projector",
            bias="vocab_projector.bias",
            activation=None,
        ),
        "SequenceClassification": Classes(out="classifier", pooling=First(), dense="pre_classifier", activation=ReLU()),
        "TokenClassification": TOKENS,
    }
    read_as: ClassVar = EncoderFamily.read_as

    def read_more(self, fields: Fields) -> dict[str, Any]:
        fields.only("tie_weights_", True)
        fields.skip("sinusoidal_pos_embds")  # how the table of positions began; it is in the file either way
        return {}


class Electra(Bert):
    """Clark et al. 2020: tables narrower than the layers; a generator, and a discriminator that finds its tokens."""

    types = ("electra",)
    name = "Electra"
    prefix = "electra."
    sizes: ClassVar = {
        **Bert.sizes,
        "width": ("hidden_size", 256),
        "heads": ("num_attention_heads", 4),
        "hidden": ("intermediate_size", 1024),
    }
    tasks: ClassVar = {
        "MaskedLM": Masked(
            dense="generator_predictions.dense",
            norm="generator_predictions.LayerNorm",
            table="generator_lm_head",
            bias="generator_lm_head.bias",
        ),
        "PreTraining": Classes(
            out="discriminator_predictions.dense_prediction", dense="discriminator_predictions.dense", labels=1
        ),
        "SequenceClassification": Classes(
            out="classifier.out_proj", pooling=First(), dense="classifier.dense", activation=EXACT_GELU
        ),
        "TokenClassification": TOKENS,
    }
    read_as: ClassVar = EncoderFamily.read_as

    def read_more(self, fields: Fields) -> dict[str, Any]:
        width = fields("embedding_size", 128)
        return {"embed_width": None if width == fields("hidden_size", 256) else width}

    def write_more(self, body: Encoder) -> dict[str, Any]:
        return {"embedding_size": body.table_width}


class Albert(Bert):
    """Lan et al. 2019: tables narrower than the layers, and one layer's parameters for all of them."""

    types = ("albert",)
    ignored = (".position_ids", *of("pooler"), *of("sop_classifier.classifier"))
    name = "Albert"
    prefix = "albert."
    sizes: ClassVar = {
        **Bert.sizes,
        "vocab": ("vocab_size", 30000),
        "width": ("hidden_size", 4096),
        "heads": ("num_attention_heads", 64),
        "hidden": ("intermediate_size", 16384),
    }
    activation = ("hidden_act", "gelu_new")
    stack = "encoder.albert_layer_groups.0.albert_layers.{}."
    projection = "encoder.embedding_hidden_mapping_in"
    linears: ClassVar = {
        "mixer.query": "attention.query",
        "mixer.key": "attention.key",
        "mixer.value": "attention.value",
        "mixer.out": "attention.dense",
        "ff.up": "ffn",
        "ff.down": "ffn_output",
    }
    norms: ClassVar = {"mixer": "attention.LayerNorm", "ff": "full_layer_layer_norm"}
    tasks: ClassVar = {
        "MaskedLM": Masked(
            dense="predictions.dense",
            norm="predictions.LayerNorm",
            table="predictions.decoder",
            bias="predictions.bias",
            activation=None,
        ),
        "SequenceClassification": Classes(out="classifier", pooling=First(), dense="albert.pooler", activation=Tanh()),
        "TokenClassification": TOKENS,
    }

    def read_more(self, fields: Fields) -> dict[str, Any]:
        for name in ("num_hidden_groups", "inner_group_num", "down_scale_factor"):
            fields.only(name, 1)
        for name in ("gap_size", "net_structure_type", "num_memory_blocks"):
            fields.only(name, 0)
        return {"embed_width": fields("embedding_size", 128), "shared_layers": True}

    def write_more(self, body: Encoder) -> dict[str, Any]:
        return {"embedding_size": body.table_width}

    def stored(self, body: Encoder) -> Encoder:
        return replace(body, layers=1)
