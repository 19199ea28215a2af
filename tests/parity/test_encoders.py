"""Encoders load transformers' checkpoints: the same logits and hidden states, padding, token types, and the way back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'lm[parity]'")
transformers = pytest.importorskip("transformers", reason="parity tests need transformers: pip install 'lm[parity]'")

from safetensors.numpy import load_file, save_file  # noqa: E402

from lm import hub  # noqa: E402
from lm.hub import HubError  # noqa: E402
from tests.parity.checks import (  # noqa: E402
    LENGTH,
    LOGITS,
    VOCAB,
    assert_close,
    assert_same_model,
    outputs,
    reference,
    some_tokens,
)

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BERT = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": LENGTH,
    "layer_norm_eps": 1e-2,
    **NO_DROPOUT,
}
ROBERTA = {**BERT, "max_position_embeddings": LENGTH + 2, "type_vocab_size": 1}
NARROW = {**BERT, "embedding_size": 12}
DISTILBERT = {
    "vocab_size": VOCAB,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 40,
    "max_position_embeddings": LENGTH,
}
MODERN = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "local_attention": 10,
    "norm_eps": 1e-2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
BIASES = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}
SPLIT = {"full_attention": {"rope_type": "default", "rope_theta": 300.0}}
SPLIT |= {"sliding_attention": {"rope_type": "default", "rope_theta": 40.0}}

Case = tuple[str, dict[str, Any]]
CASES: dict[str, Case] = {
    "bert": ("BertForMaskedLM", BERT),
    "bert-relu-types": ("BertForMaskedLM", {**BERT, "hidden_act": "relu", "type_vocab_size": 5}),
    "bert-sequences": ("BertForSequenceClassification", {**BERT, "num_labels": 3}),
    "bert-sequences-2": ("BertForSequenceClassification", BERT),
    "bert-tokens": ("BertForTokenClassification", {**BERT, "num_labels": 7}),
    "roberta": ("RobertaForMaskedLM", ROBERTA),
    "roberta-gelu_new": ("RobertaForMaskedLM", {**ROBERTA, "hidden_act": "gelu_new"}),
    "roberta-sequences": ("RobertaForSequenceClassification", {**ROBERTA, "num_labels": 1}),
    "roberta-tokens": ("RobertaForTokenClassification", ROBERTA),
    "xlm-roberta": ("XLMRobertaForMaskedLM", ROBERTA),
    "camembert": ("CamembertForSequenceClassification", ROBERTA),
    "distilbert": ("DistilBertForMaskedLM", DISTILBERT),
    "distilbert-untied": ("DistilBertForMaskedLM", {**DISTILBERT, "activation": "relu", "tie_word_embeddings": False}),
    "distilbert-alone": ("DistilBertModel", {**DISTILBERT, "sinusoidal_pos_embds": True}),
    "distilbert-sequences": ("DistilBertForSequenceClassification", {**DISTILBERT, "num_labels": 3}),
    "distilbert-tokens": ("DistilBertForTokenClassification", DISTILBERT),
    "electra-generator": ("ElectraForMaskedLM", {**NARROW, "hidden_act": "relu"}),
    "electra-untied": ("ElectraForMaskedLM", {**NARROW, "tie_word_embeddings": False}),
    "electra-alone": ("ElectraModel", {**BERT, "embedding_size": 32}),
    "electra-sequences": ("ElectraForSequenceClassification", {**NARROW, "num_labels": 4}),
    "electra-tokens": ("ElectraForTokenClassification", NARROW),
    "albert": ("AlbertForMaskedLM", NARROW),
    "albert-same-width": ("AlbertForMaskedLM", {**BERT, "embedding_size": 32, "num_hidden_layers": 1}),
    "albert-sequences": ("AlbertForSequenceClassification", {**NARROW, "num_labels": 3}),
    "albert-tokens": ("AlbertForTokenClassification", NARROW),
    "modernbert": ("ModernBertForMaskedLM", MODERN),
    "modernbert-biases": ("ModernBertForMaskedLM", {**MODERN, **BIASES, "rope_parameters": SPLIT}),
    "modernbert-untied": (
        "ModernBertForMaskedLM",
        {**MODERN, "tie_word_embeddings": False, "classifier_activation": "relu", "hidden_activation": "silu"},
    ),
    "modernbert-alone": ("ModernBertModel", {**MODERN, "local_attention": 7, "num_hidden_layers": 8}),
    "modernbert-irregular": (
        "ModernBertModel",
        {
            **MODERN,
            "layer_types": [f"{kind}_attention" for kind in ("full", "full", "sliding", "full", "full", "full")],
        },
    ),
    "modernbert-one-layer": ("ModernBertModel", {**MODERN, "num_hidden_layers": 1}),
    "modernbert-sequences": ("ModernBertForSequenceClassification", {**MODERN, "num_labels": 3}),
    "modernbert-sequences-mean": (
        "ModernBertForSequenceClassification",
        {**MODERN, **BIASES, "classifier_pooling": "mean"},
    ),
    "modernbert-tokens": ("ModernBertForTokenClassification", {**MODERN, "num_labels": 5}),
}


def made(name: str) -> Any:
    model = reference(*CASES[name])
    return without_unused(model)


def without_unused(model: Any) -> Any:
    """The reference, with zeros in the rows of positions that no token has: they aren't carried."""
    if hasattr(model, "roberta"):
        with torch.no_grad():
            model.roberta.embeddings.position_embeddings.weight[:2] = 0
    return model


@pytest.mark.parametrize("name", CASES)
def test_loads_and_saves(name: str, tmp_path: Path) -> None:
    assert_same_model(made(name), tmp_path, some_tokens())
