"""Configs of encoders: published ones whole, the defaults of transformers, and what isn't supported."""

import json
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

from lm.config import replace  # noqa: E402
from lm.hub import HubError  # noqa: E402
from lm.hub.families import family_of  # noqa: E402
from lm.hub.fields import Fields  # noqa: E402
from lm.hub.save import family_for  # noqa: E402
from lm.models import Model  # noqa: E402

BASE = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
}
ROBERTA = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "layer_norm_eps": 1e-5}
ROBERTA |= {"max_position_embeddings": 514, "type_vocab_size": 1}
FIRST_RELEASE = {"directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12}
FIRST_RELEASE |= {"pooler_num_fc_layers": 3, "pooler_size_per_head": 128, "pooler_type": "first_token_transform"}
DISTILBERT = {
    "activation": "gelu",
    "attention_dropout": 0.1,
    "dim": 768,
    "dropout": 0.1,
    "hidden_dim": 3072,
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "n_heads": 12,
    "n_layers": 6,
    "pad_token_id": 0,
    "qa_dropout": 0.1,
    "seq_classif_dropout": 0.2,
    "sinusoidal_pos_embds": False,
    "tie_weights_": True,
}
ALBERT = {
    "attention_probs_dropout_prob": 0,
    "bos_token_id": 2,
    "classifier_dropout_prob": 0.1,
    "down_scale_factor": 1,
    "embedding_size": 128,
    "eos_token_id": 3,
    "gap_size": 0,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0,
    "inner_group_num": 1,
    "net_structure_type": 0,
    "num_hidden_groups": 1,
    "num_memory_blocks": 0,
    "pad_token_id": 0,
}
ELECTRA = {"embedding_size": 128, "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
SUMMARY = {"summary_activation": "gelu", "summary_last_dropout": 0.1, "summary_type": "first", "summary_use_proj": True}
MODERN = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 50281,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 50281,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 50282,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "position_embedding_type": "absolute",
    "reference_compile": True,
    "repad_logits_with_grad": False,
    "sep_token_id": 50282,
    "sparse_pred_ignore_index": -100,
    "sparse_prediction": False,
    "torch_dtype": "float32",
}
LABELS = {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}

# the fields of their config.json on the hub
PUBLISHED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "google-bert/bert-base-uncased": (
        "bert",
        "BertForMaskedLM",
        {
            **BASE,
            "gradient_checkpointing": False,
            "pad_token_id": 0,
            "position_embedding_type": "absolute",
            "transformers_version": "4.6.0.dev0",
            "use_cache": True,
            "vocab_size": 30522,
        },
    ),
    "google-bert/bert-base-multilingual-cased": (
        "bert",
        "BertForMaskedLM",
        {**BASE, **FIRST_RELEASE, "vocab_size": 119547},
    ),
    "FacebookAI/roberta-base": ("roberta", "RobertaForMaskedLM", {**BASE, **ROBERTA, "vocab_size": 50265}),
    "FacebookAI/xlm-roberta-base": (
        "xlm-roberta",
        "XLMRobertaForMaskedLM",
        {**BASE, **ROBERTA, "output_past": True, "position_embedding_type": "absolute", "vocab_size": 250002},
    ),
    "almanach/camembert-base": ("camembert", "CamembertForMaskedLM", {**BASE, **ROBERTA, "vocab_size": 32005}),
    "distilbert/distilbert-base-uncased": ("distilbert", "DistilBertForMaskedLM", {**DISTILBERT, "vocab_size": 30522}),
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": (
        "distilbert",
        "DistilBertForSequenceClassification",
        {**DISTILBERT, **LABELS, "finetuning_task": "sst-2", "output_past": True, "vocab_size": 30522},
    ),
    "albert/albert-base-v2": ("albert", "AlbertForMaskedLM", {**BASE, **ALBERT, "vocab_size": 30000}),
    "google/electra-small-generator": (
        "electra",
        "ElectraForMaskedLM",
        {**BASE, **ELECTRA, **SUMMARY, "vocab_size": 30522, "position_embedding_type": "absolute"},
    ),
    "google/electra-base-discriminator": (
        "electra",
        "ElectraForPreTraining",
        {**BASE, "embedding_size": 768, "vocab_size": 30522, "pad_token_id": 0},
    ),
    "answerdotai/ModernBERT-base": ("modernbert", "ModernBertForMaskedLM", {**MODERN, "vocab_size": 50368}),
}


def read(config: dict[str, Any]) -> Model:
    fields = Fields(config)
    spec = family_of(fields).read(fields)
    fields.finish()
    return spec


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs(name: str) -> None:
    """Every field is known, and the model has as many parameters as transformers' of that config."""
    kind, architecture, config = PUBLISHED[name]
    spec = read({"model_type": kind, "architectures": [architecture], **config})
    made: Any = getattr(transformers, architecture)
    with torch.device("meta"):
        theirs = made(made.config_class(**config))
    unused = 2 * 768 if hasattr(theirs, "roberta") else 0  # positions that no token has
    assert spec.cost(1).params == theirs.num_parameters() - unused


@pytest.mark.parametrize("kind", sorted({kind for kind, *_ in PUBLISHED.values()}))
@pytest.mark.parametrize("task", ["MaskedLM", "SequenceClassification", "TokenClassification"])
def test_defaults(kind: str, task: str) -> None:
    """A config that says nothing is one that says all defaults of transformers."""
    config = transformers.AutoConfig.for_model(kind)
    base = {"model_type": kind, "architectures": [f"{type(config).__name__.removesuffix('Config')}For{task}"]}
    fields = Fields({**json.loads(config.to_json_string(use_diff=False)), **base})
    assert read(base) == family_of(fields).read(fields)


def refused(kind: str, fields: dict[str, Any], match: str, architecture: str = "BertForMaskedLM") -> None:
    with pytest.raises(HubError, match=match):
        read({"model_type": kind, "architectures": [architecture], **fields})


def test_what_is_not_supported() -> None:
    refused("bert", {"is_decoder": True}, "is_decoder=True isn't supported for bert, only False")
    refused("bert", {"position_embedding_type": "relative_key"}, "only 'absolute'")
    refused("bert", {"tie_word_embeddings": False}, "tie_word_embeddings=False isn't supported")
    refused("bert", {"pruned_heads": {"0": [1]}}, "pruned_heads")
    refused("bert", {"novel": 3}, "novel=3 isn't known")
    refused("bert", {}, "BertForMultipleChoice isn't supported, only BertModel", "BertForMultipleChoice")
    refused("bert", {}, "BertLMHeadModel isn't supported", "BertLMHeadModel")
    refused("bert", {"id2label": {"0": "a"}, "num_labels": 2}, "id2label names 1", "BertForTokenClassification")
    refused("roberta", {"pad_token_id": 0}, "pad_token_id=0 isn't supported")
    refused("albert", {"num_hidden_groups": 2}, "num_hidden_groups=2 isn't supported")
    refused("distilbert", {"tie_weights_": False}, "tie_weights_=False")
    refused("modernbert", {"decoder_bias": False}, "decoder_bias=False")


def test_a_model_is_written_as_the_family_it_came_from() -> None:
    """RoBERTa's spec is BERT's too; its tensors have other names."""
    config = {"model_type": "roberta", "architectures": ["RobertaForTokenClassification"]}
    assert family_for(read(config))[1]["model_type"] == "bert"
    family, written = family_for(read(config), prefer="roberta")
    assert family.types == ("roberta",) and written["architectures"] == config["architectures"]


def test_layers_that_share_less_than_alberts() -> None:
    """Two blocks by turns, each shared, aren't one block shared by all, however alike they are."""
    spec: Any = read({"model_type": "albert", "architectures": ["AlbertModel"]})
    assert family_for(spec)[0].types == ("albert",)
    with pytest.raises(HubError, match="no family of transformers is this model"):
        family_for(replace(spec, {"block": (spec.block, spec.block)}))
